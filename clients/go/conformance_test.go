//go:build linux

package wormhole

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The packets of conformance/, which the tests of every language read: its README describes them.

var conformanceFiles = []string{"packets.json", "text.json", "numbers.json", "values.json", "descriptors.json"}

type testCase struct {
	Name          string         `json:"name"`
	Type          string         `json:"type"`
	Packet        any            `json:"packet"`
	Fds           []any          `json:"fds"`
	MaxMessageLen *int           `json:"max_message_len"`
	Beside        *[]any         `json:"beside"`
	Value         map[string]any `json:"value"`
	Error         string         `json:"error"`
	But           map[string]struct {
		Value map[string]any `json:"value"`
		Error string         `json:"error"`
	} `json:"but"`
	Encode string `json:"encode"`
}

func TestConformance(t *testing.T) {
	good := map[string]testCase{}
	cases := map[string][]testCase{}
	for _, name := range conformanceFiles {
		text, err := os.ReadFile("../../conformance/" + name)
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("the folder conformance is not there")
		}
		check(t, err)
		var list []testCase
		check(t, json.Unmarshal(text, &list))
		for _, c := range list {
			if _, known := good[c.Type]; !known && c.Value != nil && c.MaxMessageLen == nil {
				good[c.Type] = c
			}
		}
		cases[name] = list
	}
	for _, name := range conformanceFiles {
		for _, c := range cases[name] {
			run := map[string]func(*testing.T, testCase, testCase){
				"u8": runCase[uint8], "i64": runCase[int64], "u64": runCase[uint64],
				"i128": runCase[int128], "u128": runCase[uint128],
				"f64": runCase[float64], "optional_f64": runCase[*float64], "bool": runCase[bool],
				"string": runCase[string], "list": runCase[[]int64], "map": runCase[map[string]int64],
				"any": runCase[any], "record": runCase[record], "choice": runCase[choice], "job": runCase[jobRecord],
				"descriptor": runCase[*os.File], "descriptors": runCase[[]*os.File],
				"sender": runCase[*Sender[uint32]], "receiver": runCase[*Receiver[uint32]], "blob": runCase[*Blob],
			}[c.Type]
			t.Run(strings.TrimSuffix(name, ".json")+"/"+c.Name, func(t *testing.T) {
				if run == nil {
					t.Fatalf("what is a %q?", c.Type)
				}
				run(t, c, good[c.Type])
			})
		}
	}
}

func runCase[T any](t *testing.T, c, good testCase) {
	noLeak(t)
	if own, ok := c.But["go"]; ok {
		c.Value, c.Error = own.Value, own.Error
	}
	tx, rx := pair[T](t, Options{Buffer: 212_992})
	if c.MaxMessageLen != nil {
		rx.SetMaxMessageLen(*c.MaxMessageLen)
	}
	kept, keptOfGood := put(t, tx, c), put(t, tx, good)
	defer closeFiles(kept)
	defer closeFiles(keptOfGood)

	value, beside, err := take(t, rx, c.Beside != nil)
	if err != nil {
		if name := errorName(err); name != c.Error {
			t.Fatalf("expected %q %v, found %s: %v", c.Error, c.Value, name, err)
		}
	} else {
		if c.Error != "" {
			t.Fatalf("expected %s, found %v", c.Error, value)
		}
		expected := normal(t, c.Value)
		same(t, shown(t, value, kept), expected)
		if c.Beside != nil {
			files, _ := descriptorsOf(t, *c.Beside)
			same(t, shown(t, beside, nil), shown(t, files, nil))
			closeFiles(files)
		}
		if c.Encode != "" {
			bytes, again := sendAgain(t, value, beside)
			same(t, shown(t, again, kept), expected)
			CloseAll(again)
			if expected := bytesOf(t, c.Packet); c.Encode == "same bytes" && string(bytes) != string(expected) {
				t.Errorf("sent %q instead of %q", bytes, expected)
			}
		}
		CloseAll(value)
		closeFiles(beside)
	}

	rx.SetMaxMessageLen(DefaultMaxMessageLen)
	value, beside, err = take(t, rx, good.Beside != nil)
	check(t, err)
	same(t, shown(t, value, keptOfGood), normal(t, good.Value))
	CloseAll(value)
	closeFiles(beside)
	_, err = rx.TryRecv()
	expect(t, err, ErrEmpty)
	check(t, tx.Close())
	check(t, rx.Close())
}

func put[T any](t *testing.T, tx *Sender[T], c testCase) []*os.File {
	sent, kept := descriptorsOf(t, c.Fds)
	defer closeFiles(sent)
	rawSend(t, tx.end, bytesOf(t, c.Packet), sent)
	return kept
}

func take[T any](t *testing.T, rx *Receiver[T], asks bool) (T, []*os.File, error) {
	if asks {
		return rx.RecvWithFds(within(t))
	}
	value, err := rx.Recv(within(t))
	return value, nil, err
}

func sendAgain[T any](t *testing.T, value T, beside []*os.File) ([]byte, T) {
	tx, rx := pair[T](t, Options{})
	defer tx.Close()
	defer rx.Close()
	check(t, tx.SendWithFds(within(t), value, beside...))
	bytes, files := rawReceive(t, rx.end)
	rawSend(t, tx.end, bytes, files)
	closeFiles(files)
	again, beside, err := rx.RecvWithFds(within(t))
	check(t, err)
	closeFiles(beside)
	return bytes, again
}

func errorName(err error) string {
	switch {
	case errors.Is(err, ErrDisconnected):
		return "Disconnected"
	case errors.Is(err, ErrFdsLost):
		return "FdsLost"
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", err), "*wormhole."), "Error")
}

func same(t *testing.T, found, expected any) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Errorf("found %v\nexpected %v", found, expected)
	}
}

// bytesOf gives the bytes that stand in the data as digits and pieces.
func bytesOf(t *testing.T, data any) []byte {
	pieces, ok := data.([]any)
	if !ok {
		pieces = []any{data}
	}
	var bytes []byte
	for _, piece := range pieces {
		var once []byte
		times := 1
		switch piece := piece.(type) {
		case string:
			once = must[[]byte](t)(hex.DecodeString(piece))
		case map[string]any:
			if text, ok := piece["ascii"].(string); ok {
				once = []byte(text)
			} else {
				once = must[[]byte](t)(hex.DecodeString(piece["hex"].(string)))
			}
			times = timesOf(piece)
		}
		bytes = append(bytes, []byte(strings.Repeat(string(once), times))...)
	}
	return bytes
}

func timesOf(data map[string]any) int {
	if times, ok := data["times"].(float64); ok {
		return int(times)
	}
	return 1
}

// normal writes a value of the data in the one form in which values are compared.
func normal(t *testing.T, value map[string]any) any {
	for kind, data := range value {
		switch kind {
		case "text", "descriptor", "blob":
			return map[string]any{kind: hex.EncodeToString(bytesOf(t, data))}
		case "list":
			list := []any{}
			for _, element := range data.([]any) {
				list = append(list, normal(t, element.(map[string]any)))
			}
			return map[string]any{"list": list}
		case "object":
			members := map[string]any{}
			for name, member := range data.(map[string]any) {
				members[name] = normal(t, member.(map[string]any))
			}
			return map[string]any{"object": members}
		case "choice", "value":
			if inner, ok := value["value"]; ok {
				return map[string]any{"choice": value["choice"], "value": normal(t, inner.(map[string]any))}
			}
		case "nested", "nested_objects":
			var nested any
			for i := 0; i < int(data.(float64)); i++ {
				switch {
				case kind == "nested" && i == 0:
					nested = map[string]any{"list": []any{}}
				case kind == "nested":
					nested = map[string]any{"list": []any{nested}}
				case i == 0:
					nested = map[string]any{"object": map[string]any{}}
				default:
					nested = map[string]any{"object": map[string]any{"x": nested}}
				}
			}
			return nested
		}
	}
	return value
}

// descriptorsOf makes what goes with a packet, and the other ends that the test keeps.
func descriptorsOf(t *testing.T, data []any) (sent, kept []*os.File) {
	for _, one := range data {
		switch one := one.(type) {
		case map[string]any:
			for i := 0; i < timesOf(one); i++ {
				sent = append(sent, memfdOf(t, one))
			}
		case string:
			fd, other := descriptorOf(t, one)
			sent = append(sent, fd)
			if other != nil {
				kept = append(kept, other)
			}
		}
	}
	return sent, kept
}

func memfdOf(t *testing.T, data map[string]any) *os.File {
	var flags uintptr
	seals, sealable := data["seals"].([]any)
	if sealable {
		flags = mfdSealing
	}
	file := memfd(t, string(bytesOf(t, data["memfd"])), flags)
	if size, ok := data["size"].(string); ok {
		check(t, file.Truncate(must[int64](t)(strconv.ParseInt(size, 10, 64))))
	}
	for _, seal := range seals {
		number := map[any]int{
			"seal": sealSeal, "shrink": sealShrink, "grow": sealGrow, "write": sealWrite, "future_write": 0x10,
		}[seal]
		must[int](t)(fcntl(int(file.Fd()), fAddSeals, number))
	}
	if data["open"] == "write" {
		writable := must[*os.File](t)(os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), os.O_WRONLY, 0))
		file.Close()
		file = writable
	}
	return file
}

func descriptorOf(t *testing.T, kind string) (fd, kept *os.File) {
	switch kind {
	case "pipe":
		r, w, err := os.Pipe()
		check(t, err)
		w.Close()
		return r, nil
	case "stream socket":
		return socketOf(t, syscall.AF_UNIX, syscall.SOCK_STREAM), nil
	case "unconnected socket":
		return socketOf(t, syscall.AF_UNIX, syscall.SOCK_SEQPACKET), nil
	case "file", "directory", "terminal":
		path := map[string]string{"file": "/proc/self/status", "directory": "/", "terminal": "/dev/ptmx"}[kind]
		// Not os.Open, which would tell the network poller of the terminal.
		fd := must[int](t)(syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0))
		return os.NewFile(uintptr(fd), path), nil
	}
	tx, rx := pair[uint32](t, Options{})
	sender, receiver := must[*os.File](t)(tx.File()), must[*os.File](t)(rx.File())
	tx.Close()
	rx.Close()
	switch kind {
	case "sender":
		return sender, receiver
	case "receiver":
		return receiver, sender
	case "dead end":
		receiver.Close()
		return sender, nil
	}
	t.Fatalf("what is a %q?", kind)
	return nil, nil
}

type record struct {
	A uint32 `json:"a"`
	B string `json:"b"`
	C []byte `json:"c"`
}

type choice struct {
	Enum
	Stop bool
	Go   *uint32
	At   *at
	Turn *turn
}

type at struct {
	Tuple
	X, Y int64
}

type turn struct {
	Degrees int64 `json:"degrees"`
	Fast    bool  `json:"fast"`
}

type jobRecord struct {
	Name  string          `json:"name"`
	Input *os.File        `json:"input"`
	Reply *Sender[uint32] `json:"reply"`
}

// int128 and uint128 show how a type brings its own bounds.
type int128 struct{ big.Int }
type uint128 struct{ big.Int }

func (i *int128) UnmarshalJSON(text []byte) error { return parseBig(&i.Int, text, true, 127) }

func (i *uint128) UnmarshalJSON(text []byte) error { return parseBig(&i.Int, text, false, 128) }

func parseBig(i *big.Int, text []byte, signed bool, bits int) error {
	if _, ok := i.SetString(string(text), 10); !ok {
		return fmt.Errorf("%s is no integer", text)
	}
	lowest := new(big.Int).Lsh(big.NewInt(-1), uint(bits))
	if i.Sign() >= 0 && i.BitLen() <= bits || signed && i.Sign() < 0 && i.Cmp(lowest) >= 0 {
		return nil
	}
	return fmt.Errorf("%s is out of range", text)
}

// shown writes a value as the data does. kept are the other ends of the ends in it.
func shown(t *testing.T, value any, kept []*os.File) any {
	object := func(members map[string]any) any {
		all := map[string]any{}
		for name, member := range members {
			all[name] = shown(t, member, kept)
		}
		return map[string]any{"object": all}
	}
	integer := func(digits any) any { return map[string]any{"int": fmt.Sprint(digits)} }
	switch value := value.(type) {
	case nil:
		return map[string]any{"null": true}
	case bool:
		return map[string]any{"bool": value}
	case uint8, uint32, int64, uint64:
		return integer(value)
	case int128:
		return integer(&value.Int)
	case uint128:
		return integer(&value.Int)
	case float64:
		return map[string]any{"f64": fmt.Sprintf("%016x", math.Float64bits(value))}
	case *float64:
		if value == nil {
			return shown(t, nil, nil)
		}
		return shown(t, *value, nil)
	case json.Number:
		if strings.ContainsAny(string(value), ".eE") || value == "-0" {
			return shown(t, must[float64](t)(value.Float64()), nil)
		}
		return integer(value)
	case string:
		return map[string]any{"text": hex.EncodeToString([]byte(value))}
	case []byte:
		return listShown(t, value, kept)
	case []int64:
		return listShown(t, value, kept)
	case []any:
		return listShown(t, value, kept)
	case []*os.File:
		return listShown(t, value, kept)
	case map[string]int64:
		all := map[string]any{}
		for name, member := range value {
			all[name] = member
		}
		return object(all)
	case map[string]any:
		return object(value)
	case record:
		return object(map[string]any{"a": value.A, "b": value.B, "c": value.C})
	case jobRecord:
		return object(map[string]any{"name": value.Name, "input": value.Input, "reply": value.Reply})
	case choice:
		variant := func(name string, inner any) any {
			return map[string]any{"choice": name, "value": shown(t, inner, kept)}
		}
		switch {
		case value.Stop:
			return map[string]any{"choice": "Stop"}
		case value.Go != nil:
			return variant("Go", *value.Go)
		case value.At != nil:
			return variant("At", []int64{value.At.X, value.At.Y})
		default:
			return variant("Turn", map[string]any{"degrees": value.Turn.Degrees, "fast": value.Turn.Fast})
		}
	case *os.File:
		mode := must[os.FileInfo](t)(value.Stat()).Mode()
		for name, bit := range map[string]os.FileMode{
			"pipe": os.ModeNamedPipe, "socket": os.ModeSocket, "directory": os.ModeDir,
			"character device": os.ModeCharDevice,
		} {
			if mode&bit != 0 {
				return map[string]any{"file_type": name}
			}
		}
		return map[string]any{"descriptor": hex.EncodeToString([]byte(content(t, value)))}
	case *Blob:
		var digits string
		check(t, value.View(func(bytes []byte) error {
			digits = hex.EncodeToString(bytes)
			return nil
		}))
		return map[string]any{"blob": digits}
	case *Sender[uint32]:
		err := value.Send(within(t), 5)
		if errors.Is(err, ErrDisconnected) {
			return map[string]any{"end": "dead"}
		}
		check(t, err)
		other := must[*Receiver[uint32]](t)(ReceiverFromFile[uint32](kept[0]))
		defer other.Close()
		if got := must[uint32](t)(other.Recv(within(t))); got != 5 {
			t.Errorf("found %d", got)
		}
		return map[string]any{"end": "sender"}
	case *Receiver[uint32]:
		if len(kept) > 0 {
			other := must[*Sender[uint32]](t)(SenderFromFile[uint32](kept[0]))
			check(t, other.Send(within(t), 5))
			other.Close()
		}
		got, err := value.Recv(within(t))
		if errors.Is(err, ErrDisconnected) {
			return map[string]any{"end": "dead"}
		}
		check(t, err)
		if got != 5 {
			t.Errorf("found %d", got)
		}
		return map[string]any{"end": "receiver"}
	}
	t.Fatalf("cannot show a %T", value)
	return nil
}

func listShown[V any](t *testing.T, list []V, kept []*os.File) any {
	all := []any{}
	for _, element := range list {
		all = append(all, shown(t, element, kept))
	}
	return map[string]any{"list": all}
}
