//go:build linux

package wormhole_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"time"

	"wormhole"
)

// A request carries the channel for its reply, and a file.
type Request struct {
	Input *os.File                `json:"input"`
	Reply *wormhole.Sender[int64] `json:"reply"`
}

func Example() {
	ctx := context.Background()
	tx, rx, err := wormhole.Channel[Request]()
	if err != nil {
		log.Fatal(err)
	}

	// Usually in another process: answers with the size of each file.
	go func() {
		for {
			request, err := rx.Recv(ctx)
			if errors.Is(err, wormhole.ErrDisconnected) {
				return
			}
			if err != nil {
				log.Print(err) // that message is lost, the next one is not
				continue
			}
			info, err := request.Input.Stat()
			if err == nil {
				err = request.Reply.Send(ctx, info.Size())
			}
			if err != nil {
				log.Print(err)
			}
			wormhole.CloseAll(request)
		}
	}()

	reply, replies, err := wormhole.Channel[int64]()
	if err != nil {
		log.Fatal(err)
	}
	input, err := os.Open("/dev/null")
	if err != nil {
		log.Fatal(err)
	}
	request := Request{input, reply}
	err = tx.Send(ctx, request)
	wormhole.CloseAll(request) // they are the receiver's now
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(replies.Recv(ctx))
	fmt.Println(replies.Recv(ctx))
	tx.Close()
	// Output:
	// 0 <nil>
	// 0 wormhole: channel is disconnected: every copy of its other end is gone
}

func ExampleReceiver_Recv_deadline() {
	tx, rx, err := wormhole.Channel[string]()
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Close()
	defer rx.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err = rx.Recv(ctx)
	fmt.Println(err, errors.Is(err, wormhole.ErrTimedOut), errors.Is(err, context.DeadlineExceeded))
	// Output: wormhole: timed out waiting for the other side true true
}

func ExampleSpawn() {
	type Args struct {
		wormhole.Tuple // (String, Sender<String>) in Rust
		Question       string
		Answer         *wormhole.Sender[string]
	}
	answer, answers, err := wormhole.Channel[string]()
	if err != nil {
		log.Fatal(err)
	}
	plugin := exec.Command("./plugin")
	if err := wormhole.Spawn(plugin, Args{Question: "a question", Answer: answer}); err != nil {
		fmt.Println(err)
		return
	}
	// There: args, err := wormhole.Inherit[Args](), or let args = wormhole::inherit::<(String, Sender<String>)>()?;
	fmt.Println(answers.Recv(context.Background())) // ErrDisconnected if the plugin ends without a word
	_ = plugin.Wait()
	// Output: wormhole: cannot start a program: fork/exec ./plugin: no such file or directory
}

func ExampleEnum() {
	type Point struct {
		X int `json:"x"`
		Y int `json:"y"`
	}
	// enum Command { Quit, Move { x: i64, y: i64 }, Say(String) } in Rust.
	type Command struct {
		wormhole.Enum
		Quit bool
		Move *Point
		Say  *string
	}
	tx, rx, err := wormhole.Channel[Command]()
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Close()
	defer rx.Close()
	ctx := context.Background()
	fmt.Println(tx.Send(ctx, Command{Move: &Point{1, 2}}))
	command, err := rx.Recv(ctx)
	fmt.Println(command.Quit, *command.Move, command.Say, err)
	fmt.Println(tx.Send(ctx, Command{}))
	// Output:
	// <nil>
	// false {1 2} <nil> <nil>
	// wormhole: cannot encode a message of type wormhole_test.Command: no variant of wormhole_test.Command is set
}
