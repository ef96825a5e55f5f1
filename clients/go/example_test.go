//go:build linux

package wormhole_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	wormhole "github.com/wormhole-rs/wormhole-rs/clients/go"
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
			if _, lasts := err.(*wormhole.IOError); lasts || errors.Is(err, wormhole.ErrClosed) {
				log.Fatal(err) // the next call may fail alike
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

func ExampleReceiver_RecvWithFds() {
	tx, rx, err := wormhole.Channel[string]()
	if err != nil {
		log.Fatal(err)
	}
	defer wormhole.CloseAll([]any{tx, rx})
	ctx := context.Background()
	input, err := os.Open("/dev/null")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tx.SendWithFds(ctx, "read these", input, input))
	fmt.Println(tx.SendWithFds(ctx, "and this", input))
	input.Close() // what was sent are duplicates
	text, files, err := rx.RecvWithFds(ctx)
	fmt.Println(text, len(files), err)
	for _, file := range files {
		file.Close()
	}
	_, err = rx.Recv(ctx)
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
	// read these 2 <nil>
	// wormhole: received a message with 1 descriptors that nothing claims
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

func ExampleListen() {
	ctx := context.Background()
	directory, err := os.MkdirTemp("", "wormhole")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "server")
	listener, err := wormhole.Listen[string](path)
	if err != nil {
		log.Fatal(err)
	}
	// Usually in another process, which need not be a relative.
	tx, err := wormhole.Connect[string](ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tx.Send(ctx, "hello"))
	tx.Close()

	rx, peer, err := listener.Accept(ctx)
	fmt.Println(peer.PID == os.Getpid(), err)
	fmt.Println(rx.Recv(ctx))
	_, err = rx.Recv(ctx)
	fmt.Println(errors.Is(err, wormhole.ErrDisconnected))
	rx.Close()
	listener.Close()
	_, err = wormhole.Connect[string](ctx, path)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// <nil>
	// true <nil>
	// hello <nil>
	// true
	// true
}

func ExampleBlob() {
	ctx := context.Background()
	tx, rx, err := wormhole.ChannelWith[*wormhole.Blob](wormhole.Options{MaxBlobLen: 10})
	if err != nil {
		log.Fatal(err)
	}
	defer wormhole.CloseAll([]any{tx, rx})
	for _, text := range []string{"bulk data", "more bulk data"} {
		blob, err := wormhole.NewBlob([]byte(text))
		if err != nil {
			log.Fatal(err)
		}
		if err := tx.Send(ctx, blob); err != nil {
			log.Fatal(err)
		}
		blob.Close()
	}
	blob, err := rx.Recv(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	err = blob.View(func(bytes []byte) error {
		fmt.Printf("%s\n", bytes)
		return nil
	})
	fmt.Println(err)
	_, err = rx.Recv(ctx)
	fmt.Println(err)
	// Output:
	// bulk data
	// <nil>
	// wormhole: cannot decode a message as *wormhole.Blob: blobs of 14 bytes are longer than the limit of 10 bytes
}

func ExampleReceiver_Recv_cancel() {
	tx, rx, err := wormhole.Channel[int]()
	if err != nil {
		log.Fatal(err)
	}
	defer wormhole.CloseAll([]any{tx, rx})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fmt.Println(tx.Send(context.Background(), 1))
	_, err = rx.Recv(ctx)
	fmt.Println(errors.Is(err, context.Canceled))
	fmt.Println(rx.Recv(context.Background())) // nothing was lost
	fmt.Println(rx.TryRecv())
	// Output:
	// <nil>
	// true
	// 1 <nil>
	// 0 wormhole: cannot receive now: nothing is waiting
}

func ExampleSender_TrySend() {
	tx, rx, err := wormhole.Channel[int]()
	if err != nil {
		log.Fatal(err)
	}
	for err == nil {
		err = tx.TrySend(1)
	}
	fmt.Println(err)
	rx.Close()
	fmt.Println(tx.TrySend(1))
	tx.Close()
	fmt.Println(tx.TrySend(1))
	// Output:
	// wormhole: cannot send now: the channel is full
	// wormhole: channel is disconnected: every copy of its other end is gone
	// wormhole: this end of the channel was closed here
}

func ExampleTuple() {
	type Pair struct { // (String, u32) in Rust
		wormhole.Tuple
		Name   string
		Number uint32
	}
	tx, rx, err := wormhole.Channel[any]()
	if err != nil {
		log.Fatal(err)
	}
	defer wormhole.CloseAll([]any{tx, rx})
	fmt.Println(tx.Send(context.Background(), Pair{Name: "one", Number: 1}))
	fmt.Println(rx.Recv(context.Background()))
	// Output:
	// <nil>
	// [one 1] <nil>
}

// A program that Rust's Pool starts counts the words of files.
func ExampleWork() {
	err := wormhole.Work(func(path string) (int, error) {
		text, err := os.ReadFile(path)
		return len(strings.Fields(string(text))), err
	})
	fmt.Println(err)
	// Output: wormhole: nothing to inherit: the environment variable WORMHOLE_FD is not set
}
