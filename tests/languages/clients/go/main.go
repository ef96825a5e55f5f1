// The program in Go. Its argument is its role, what it is handed are the types below: see messages.rs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/big"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"

	wormhole "github.com/wormhole-rs/wormhole-rs/clients/go"
)

const language = "go"

type letter struct {
	Number   uint64  `json:"number"`
	Text     string  `json:"text"`
	Wide     uint64  `json:"wide"`
	Negative int64   `json:"negative"`
	Third    float64 `json:"third"`
	List     []byte  `json:"list"`
	Maybe    *string `json:"maybe"`
}

func newLetter(number uint64) letter {
	l := letter{
		Number:   number,
		Text:     fmt.Sprintf("letter %d: é 😀 \x00 \" \\ \n </b>", number),
		Wide:     number * 0x9e3779b97f4a7c15,
		Negative: -int64(number),
		Third:    float64(number) / 3,
		List:     []byte(strings.Repeat("\x07", int(number%5))),
	}
	if number%2 == 0 {
		maybe := strconv.FormatUint(number, 10)
		l.Maybe = &maybe
	}
	return l
}

type parcel struct {
	Name   string                     `json:"name"`
	Inputs []*os.File                 `json:"inputs"`
	Reply  *wormhole.Sender[string]   `json:"reply"`
	Words  *wormhole.Receiver[string] `json:"words"`
	Data   *wormhole.Blob             `json:"data"`
}

type streams struct {
	Pipe       *os.File `json:"pipe"`
	Connection *os.File `json:"connection"`
}

type sending[T any] struct {
	To      *wormhole.Sender[T]      `json:"to"`
	Plan    []uint64                 `json:"plan"`
	Report  *wormhole.Sender[string] `json:"report"`
	Forever *wormhole.Receiver[byte] `json:"forever"`
}

type receiving[T any] struct {
	Source  *wormhole.Receiver[T]    `json:"source"`
	Plan    []uint64                 `json:"plan"`
	Report  *wormhole.Sender[string] `json:"report"`
	Forever *wormhole.Receiver[byte] `json:"forever"`
}

type starting struct {
	Command     []string                 `json:"command"`
	Environment map[string]string        `json:"environment"`
	To          *wormhole.Sender[string] `json:"to"`
	Until       *wormhole.Receiver[byte] `json:"until"`
}

type saying struct {
	To      *wormhole.Sender[string] `json:"to,omitempty"`
	Address *string                  `json:"address"`
}

type passing struct {
	Source *wormhole.Receiver[*wormhole.Sender[string]] `json:"source"`
	To     *wormhole.Sender[*wormhole.Sender[string]]   `json:"to"`
}

type job struct {
	Number uint64 `json:"number"`
	Wait   bool   `json:"wait"`
}

type done struct {
	Number   uint64 `json:"number"`
	Square   uint64 `json:"square"`
	Language string `json:"language"`
}

type working struct {
	Jobs    *wormhole.Receiver[job]  `json:"jobs"`
	Results *wormhole.Sender[done]   `json:"results"`
	Gate    *wormhole.Receiver[byte] `json:"gate"`
}

var ctx = context.Background()

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func must[V any](value V, err error) V {
	check(err)
	return value
}

func checkOver(err error) {
	if !errors.Is(err, wormhole.ErrDisconnected) {
		log.Panic("expected the end, got ", err)
	}
}

func longText(size uint64) string {
	return strings.Repeat("wörmhole ", int(size/10+1))
}

func file(content string) *os.File {
	file := must(os.CreateTemp("", "wormhole-peer"))
	check(os.Remove(file.Name()))
	must(file.WriteString(content))
	return file
}

func content(file *os.File) string {
	bytes := make([]byte, 1000)
	n, _ := file.ReadAt(bytes, 0)
	return string(bytes[:n])
}

func sendLetters() {
	args := must(wormhole.Inherit[sending[letter]]())
	for number := uint64(0); number < args.Plan[0]; number++ {
		check(args.To.Send(ctx, newLetter(number)))
	}
	check(args.Report.Send(ctx, "done"))
}

func receiveLetters() {
	args := must(wormhole.Inherit[receiving[letter]]())
	for number := uint64(0); number < args.Plan[0]; number++ {
		if got := must(args.Source.Recv(ctx)); !reflect.DeepEqual(got, newLetter(number)) {
			log.Panicf("got %+v", got)
		}
	}
	_, err := args.Source.Recv(ctx)
	checkOver(err)
	check(args.Report.Send(ctx, "done"))
}

func sendParcels() {
	args := must(wormhole.Inherit[sending[parcel]]())
	for _, size := range args.Plan {
		reply, replies, err := wormhole.Channel[string]()
		check(err)
		word, words, err := wormhole.Channel[string]()
		check(err)
		check(word.Send(ctx, "word"))
		check(word.Close())
		parcel := parcel{
			Name:   longText(size),
			Inputs: []*os.File{file("first"), file("second")},
			Reply:  reply,
			Words:  words,
			Data:   must(wormhole.NewBlob([]byte("blob"))),
		}
		check(args.To.SendWithFds(ctx, parcel, file("beside")))
		wormhole.CloseAll(parcel)
		expected := fmt.Sprintf("%d first second beside word blob", len(parcel.Name))
		if got := must(replies.Recv(ctx)); got != expected {
			log.Panicf("got %s", got)
		}
		_, err = replies.Recv(ctx)
		checkOver(err)
	}
	check(args.Report.Send(ctx, "done"))
}

func receiveParcels() {
	args := must(wormhole.Inherit[receiving[parcel]]())
	for _, size := range args.Plan {
		parcel, beside, err := args.Source.RecvWithFds(ctx)
		check(err)
		if parcel.Name != longText(size) || len(beside) != 1 {
			log.Panicf("got %d bytes and %d files", len(parcel.Name), len(beside))
		}
		word := must(parcel.Words.Recv(ctx))
		_, err = parcel.Words.Recv(ctx)
		checkOver(err)
		check(parcel.Data.View(func(data []byte) error {
			return parcel.Reply.Send(ctx, fmt.Sprintf("%d %s %s %s %s %s", len(parcel.Name),
				content(parcel.Inputs[0]), content(parcel.Inputs[1]), content(beside[0]), word, data))
		}))
		wormhole.CloseAll(parcel)
	}
	_, err := args.Source.Recv(ctx)
	checkOver(err)
	check(args.Report.Send(ctx, "done"))
}

func fill() {
	args := must(wormhole.Inherit[sending[letter]]())
	err := args.To.TrySend(newLetter(0))
	for err == nil {
		err = args.To.TrySend(newLetter(0))
	}
	if err != wormhole.ErrFull {
		log.Panic(err)
	}
	check(args.Report.Send(ctx, "full"))
	checkOver(args.To.Send(ctx, newLetter(0)))
	check(args.Report.Send(ctx, "disconnected"))
}

func hold() {
	args := must(wormhole.Inherit[receiving[letter]]())
	defer wormhole.CloseAll(args) // not to be collected before
	must(args.Forever.Recv(ctx))
}

func sendOneAndHold() {
	args := must(wormhole.Inherit[sending[letter]]())
	defer wormhole.CloseAll(args) // not to be collected before
	check(args.To.Send(ctx, newLetter(1)))
	must(args.Forever.Recv(ctx))
}

func wait() {
	args := must(wormhole.Inherit[receiving[letter]]())
	if got := must(args.Source.Recv(ctx)); !reflect.DeepEqual(got, newLetter(1)) {
		log.Panicf("got %+v", got)
	}
	check(args.Report.Send(ctx, "one"))
	_, err := args.Source.Recv(ctx)
	checkOver(err)
	check(args.Report.Send(ctx, "disconnected"))
}

func start() {
	args := must(wormhole.Inherit[starting]())
	cmd := exec.Command(args.Command[0], args.Command[1:]...)
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	for name, value := range args.Environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	check(wormhole.Spawn(cmd, saying{To: args.To}))
	check(cmd.Wait())
	_, err := args.Until.Recv(ctx)
	checkOver(err)
}

func say() {
	args := must(wormhole.Inherit[saying]())
	if args.To == nil {
		args.To = must(wormhole.Connect[string](ctx, *args.Address))
	}
	check(args.To.Send(ctx, language))
}

// listen says when it listens, and then what the one who connects has to say.
func listen() {
	args := must(wormhole.Inherit[saying]())
	listener := must(wormhole.Listen[string](*args.Address))
	check(args.To.Send(ctx, "listening"))
	source, _, err := listener.Accept(ctx)
	check(err)
	check(args.To.Send(ctx, must(source.Recv(ctx))))
	_, err = source.Recv(ctx)
	checkOver(err)
	check(listener.Close())
}

func passOn() {
	args := must(wormhole.Inherit[passing]())
	end := must(args.Source.Recv(ctx))
	check(end.Send(ctx, language))
	check(args.To.Send(ctx, end))
}

func work() {
	args := must(wormhole.Inherit[working]())
	for {
		job, err := args.Jobs.Recv(ctx)
		if errors.Is(err, wormhole.ErrDisconnected) {
			return
		}
		check(err)
		check(args.Results.Send(ctx, done{job.Number, job.Number * job.Number, language}))
		if job.Wait {
			must(args.Gate.Recv(ctx))
		}
	}
}

// sendStreams sends what the runtime has made non-blocking, and writes when it is told to.
func sendStreams() {
	args := must(wormhole.Inherit[sending[streams]]())
	reader, writer, err := os.Pipe()
	check(err)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	client := must(net.Dial("tcp", listener.Addr().String()))
	server := must(listener.Accept())
	connection := must(server.(*net.TCPConn).File())
	check(server.Close())
	message := streams{reader, connection}
	check(args.To.Send(ctx, message))
	wormhole.CloseAll(message)
	_, err = args.Forever.Recv(ctx)
	checkOver(err)
	must(fmt.Fprint(writer, "from a pipe"))
	must(fmt.Fprint(client, "from the net"))
	check(writer.Close())
	check(client.Close())
}

func receiveStreams() {
	args := must(wormhole.Inherit[receiving[streams]]())
	message := must(args.Source.Recv(ctx))
	check(args.Report.Send(ctx, "reading"))
	pipe := must(io.ReadAll(message.Pipe))
	connection := must(io.ReadAll(message.Connection))
	check(args.Report.Send(ctx, fmt.Sprintf("%s, %s", pipe, connection)))
}

func pool() {
	check(wormhole.Work(func(job string) (uint64, error) {
		if job == "panic" {
			panic("no such number")
		}
		return strconv.ParseUint(job, 10, 64)
	}))
}

type alike int // keys that are written alike

func (alike) MarshalText() ([]byte, error) { return []byte("same"), nil }

type keys struct {
	Inner map[uint32]uint32 `json:"inner"`
}

// Its fields are those of keys, as if that was flattened.
type flattened struct{ keys }

type inner struct {
	Inner *big.Int `json:"inner"`
}

type wide struct {
	Kind string `json:"kind"`
	inner
}

type systemTime struct {
	Secs  uint64 `json:"secs_since_epoch"`
	Nanos uint32 `json:"nanos_since_epoch"`
}

func nested(levels int) any {
	value := []any{}
	for i := 1; i < levels; i++ {
		value = []any{value}
	}
	return value
}

type tableArgs struct {
	Steps  *wormhole.Receiver[string] `json:"steps"`
	Source *wormhole.Receiver[any]    `json:"source"`
	To     *wormhole.Sender[any]      `json:"to"`
}

// read receives a value of a type, and sends it back.
func read[T any](args tableArgs) {
	file := must(args.Source.File())
	source := must(wormhole.ReceiverFromFile[T](file))
	check(file.Close())
	value, err := source.Recv(ctx)
	check(source.Close())
	send(args, value, err)
}

// send sends a value, or says that it was refused.
func send(args tableArgs, value any, err error) {
	var decode *wormhole.DecodeError
	var encode *wormhole.EncodeError
	if err == nil {
		err = args.To.Send(ctx, value)
	}
	if errors.As(err, &decode) || errors.As(err, &encode) {
		err = args.To.Send(ctx, "refused")
	}
	check(err)
}

func table() {
	args := must(wormhole.Inherit[tableArgs]())
	defer wormhole.CloseAll(args)
	reads := map[string]func(tableArgs){
		"float": read[float64], "optional float": read[*float64], "keys": read[flattened], "wide": read[wide],
		"anything": read[any], "time": read[systemTime], "bytes": read[[]byte],
	}
	var nothing *float64
	tooWide := new(big.Int).Lsh(big.NewInt(1), 64)
	tooWide.Add(tooWide, big.NewInt(1))
	values := map[string]any{
		"NaN": math.NaN(), "infinity": []any{map[string]float32{"x": float32(math.Inf(-1))}}, "minus zero": math.Copysign(0, -1),
		"no Unicode": "\xff", "a key that is no Unicode": map[string]int{"\xff": 1},
		"127 levels": nested(127), "128 levels": nested(128),
		"keys that are lists": map[[1]int]int{{1}: 2}, "keys that are written alike": map[alike]int{1: 1, 2: 2},
		"something that is written null": &nothing, "nothing": nothing,
		"2^64+1": tooWide, "2^64+1 in a record": inner{tooWide}, "2^53+1": 1<<53 + 1,
		"keys": flattened{keys{map[uint32]uint32{7: 2}}},
	}
	for {
		step, err := args.Steps.Recv(ctx)
		if errors.Is(err, wormhole.ErrDisconnected) {
			return
		}
		check(err)
		how, name, _ := strings.Cut(step, " ")
		if how == "read" {
			reads[name](args)
			continue
		}
		value, known := values[name]
		if !known {
			log.Panicf("what is %s?", name)
		}
		send(args, value, nil)
	}
}

func main() {
	map[string]func(){
		"send letters": sendLetters, "receive letters": receiveLetters,
		"send parcels": sendParcels, "receive parcels": receiveParcels,
		"fill": fill, "hold": hold, "send one and hold": sendOneAndHold, "wait": wait,
		"start": start, "say": say, "listen": listen, "pass on": passOn, "work": work,
		"send streams": sendStreams, "receive streams": receiveStreams, "pool": pool, "table": table,
	}[os.Args[1]]()
}
