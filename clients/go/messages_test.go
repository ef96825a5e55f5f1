//go:build linux

package wormhole

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

type inner struct {
	X     int
	Shade string `json:"shade,omitempty"`
}

type hidden struct{ Y int }

type outer struct {
	inner  // embedded, not exported: its fields are there
	*named `json:"named"`
	*hidden2
	X string // hides inner's
	//lint:ignore U1000 not exported, so no member
	skip   int
	Not    int `json:"-"`
	Number json.Number
	Maybe  *int
	Any    any
}

type named struct{ Z int }
type hidden2 struct{ W int }

type self *self

type ring struct{ Next *ring }

type color int

func (c color) MarshalText() ([]byte, error) {
	if c < 0 {
		return nil, errors.New("no color")
	}
	return []byte(fmt.Sprint("color-", int(c))), nil
}

func (c *color) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "color-%d", (*int)(c))
	return err
}

func textOf(t *testing.T, value any) (string, *problem) {
	t.Helper()
	var e encoder
	defer e.release()
	p := e.value(reflect.ValueOf(&value).Elem())
	return string(e.text), p
}

func TestValuesAreWrittenAsSpecified(t *testing.T) {
	seven := 7
	for _, c := range []struct {
		value    any
		expected string
	}{
		{nil, `null`},
		{record{1776, "hello world!", []byte{5, 4, 3, 2, 1}}, `{"a":1776,"b":"hello world!","c":[5,4,3,2,1]}`},
		{record{}, `{"a":0,"b":"","c":[]}`},
		{[]byte(nil), `[]`},
		{[2]bool{true}, `[true,false]`},
		{map[string]int(nil), `{}`},
		{map[int]string{2: "b", 1: "a"}, `{"1":"a","2":"b"}`},
		{map[bool]int{true: 1}, `{"true":1}`},
		{map[color]int{3: 1}, `{"color-3":1}`},
		{map[string]big.Int{"x": *big.NewInt(5)}, `{"x":5}`},
		{new(big.Int).Lsh(big.NewInt(1), 100), `1267650600228229401496703205376`},
		{int64(math.MinInt64), `-9223372036854775808`},
		{uint64(math.MaxUint64), `18446744073709551615`},
		{1.0, `1.0`},
		{1e21, `1e+21`},
		{1e20, `100000000000000000000.0`},
		{math.Copysign(0, -1), `-0.0`},
		{0.1, `0.1`},
		{float32(0.1), `0.1`},
		{5e-324, `5e-324`},
		{math.MaxFloat64, `1.7976931348623157e+308`},
		{"<a href='x'>&\u2028\x00\x1f\"\\\n", "\"<a href='x'>&\u2028\\u0000\\u001f\\\"\\\\\\n\""},
		{json.Number("1.50"), `1.50`},
		{json.RawMessage(`{"x": [1]}`), `{"x": [1]}`},
		{time.Unix(0, 0).UTC(), `"1970-01-01T00:00:00Z"`},
		{color(2), `"color-2"`},
		{[]any{1, "x", nil, 2.5, []int{}}, `[1,"x",null,2.5,[]]`},
		{&seven, `7`},
		{(*int)(nil), `null`},
		{inner{X: 1}, `{"X":1}`},
		{outer{inner: inner{1, "red"}, named: &named{1}, X: "x", Number: "5", Any: &seven},
			`{"shade":"red","X":"x","Number":5,"Maybe":null,"Any":7}`},
		{struct {
			Tuple
			A string
			B []int
		}{A: "x"}, `["x",[]]`},
		{choice{Stop: true}, `"Stop"`},
		{choice{At: &at{X: 1, Y: -2}}, `{"At":[1,-2]}`},
	} {
		found, p := textOf(t, c.value)
		if p != nil {
			t.Errorf("%v: %s", c.value, p.text())
		} else if found != c.expected {
			t.Errorf("found    %s\nexpected %s", found, c.expected)
		}
	}
	_ = hidden{}
}

func TestWhatCannotBeWritten(t *testing.T) {
	noLeak(t)
	r := new(ring)
	r.Next = r
	var ownSelf self
	ownSelf = &ownSelf
	deep := any(nil)
	for i := 0; i < 128; i++ {
		deep = []any{deep}
	}
	tx, rx := pair[int](t, Options{})
	defer rx.Close()
	defer tx.Close()
	closed, other := pair[int](t, Options{})
	closed.Close()
	other.Close()
	type derived Sender[int]
	for _, c := range []struct {
		value    any
		expected string
	}{
		{math.NaN(), "no number for NaN"},
		{[]float64{1, math.Inf(-1)}, "[1]: JSON has no number for -Inf"},
		{"\xff", "is not UTF-8"},
		{map[string]int{"\xff": 1}, "is not UTF-8"},
		{make(chan int), "a value of type chan int cannot be written"},
		{map[string]any{"f": func() {}}, ".f: a value of type func() cannot be written"},
		{map[[2]int]int{{}: 1}, "a map with keys of type [2]int cannot be written"},
		{r, "nested deeper than 127 levels"},
		{ownSelf, "pointers to follow"},
		{deep, "nested deeper than 127 levels"},
		{json.Number("1,5"), "is no number"},
		{json.Number(""), "is no number"},
		{json.RawMessage("{"), "what MarshalJSON wrote is no JSON"},
		{json.RawMessage("NaN"), "what MarshalJSON wrote is no JSON"},
		{json.RawMessage("\"\xff\""), "not UTF-8"},
		{json.RawMessage(strings.Repeat("[", 128) + strings.Repeat("]", 128)), "nested deeper than 127"},
		{color(-1), "no color"},
		{choice{}, "no variant of wormhole.choice is set"},
		{choice{Stop: true, Go: new(uint32)}, "both Stop and Go"},
		{struct {
			Enum
			X int
		}{}, "variant X is neither a bool nor a pointer"},
		{struct {
			X int `json:",string"`
		}{}, "option string"},
		{(*os.File)(nil), "a nil *os.File"},
		{struct{ Reply *Sender[int] }{}, ".Reply: a nil *wormhole.Sender[int]"},
		{closed, "this end of the channel was closed here"},
		{*tx, "must be a pointer"},
		{derived(*tx), "must be a pointer"},
		{[]any{tx, rx, tx, math.NaN()}, "[3]: JSON has no number"},
	} {
		found, p := textOf(t, c.value)
		if p == nil {
			t.Errorf("%v is written %s", c.value, found)
		} else if !strings.Contains(p.text(), c.expected) {
			t.Errorf("found %q, expected %q", p.text(), c.expected)
		}
	}
	var encode *EncodeError
	anything, _ := pair[any](t, Options{})
	defer anything.Close()
	err := anything.Send(within(t), color(-1))
	if !errors.As(err, &encode) || encode.Err == nil || encode.Err.Error() != "no color" {
		t.Errorf("found %v", err)
	}
	expect(t, anything.Send(within(t), closed), ErrClosed)
	for _, outside := range []any{tx, rx, &Blob{}} {
		if text, err := json.Marshal(outside); err == nil {
			t.Errorf("encoding/json makes %s of it", text)
		}
	}
}

// Enums of several kinds. shade is a string by another name, level has methods of its pointer, code and grade bring JSON of
// their own, a string and a number, and spot has another form for keys.
type shade string
type level int
type code int
type grade int
type spot struct{ X, Y int }

func (s shade) MarshalText() ([]byte, error) { return []byte(strings.ToUpper(string(s))), nil }

func (s *shade) UnmarshalText(text []byte) error {
	*s = shade(strings.ToLower(string(text)))
	return nil
}

func (l *level) MarshalText() ([]byte, error) { return []byte(fmt.Sprint("level ", int(*l))), nil }

func (l *level) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "level %d", (*int)(l))
	return err
}

func (c code) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprintf("\"%d\"", int(c))) }

func (c *code) UnmarshalJSON(text []byte) error {
	_, err := fmt.Sscanf(string(text), `"\"%d\""`, (*int)(c))
	return err
}

func (g grade) MarshalJSON() ([]byte, error) { return []byte(fmt.Sprintf(" %d ", 100*int(g))), nil }

func (g *grade) UnmarshalJSON(text []byte) error {
	*g = -1 // which must not stay after a failure
	if _, err := fmt.Sscanf(string(text), "%d", (*int)(g)); err != nil {
		return err
	}
	*g /= 100
	return nil
}

func (s spot) MarshalJSON() ([]byte, error) { return []byte(fmt.Sprintf("[%d,%d]", s.X, s.Y)), nil }

func (s *spot) UnmarshalJSON(text []byte) error {
	_, err := fmt.Sscanf(string(text), "[%d,%d]", &s.X, &s.Y)
	return err
}

func (s spot) MarshalText() ([]byte, error) { return []byte(fmt.Sprintf("%d,%d", s.X, s.Y)), nil }

func (s *spot) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "%d,%d", &s.X, &s.Y)
	return err
}

type everywhere[T comparable] struct {
	Alone T
	Keys  map[T]bool
	Loose map[any]bool `json:",omitempty"`
}

// spelledAlike sends a value as itself, as a key, and where there is no type.
func spelledAlike[T comparable](t *testing.T, value T, alone, key string) {
	t.Helper()
	text, p := textOf(t, everywhere[T]{value, map[T]bool{value: true}, map[any]bool{value: true}})
	if p != nil {
		t.Fatal(p.text())
	}
	if expected := fmt.Sprintf(`{"Alone":%s,"Keys":{%s:true},"Loose":{%s:true}}`, alone, key, key); text != expected {
		t.Errorf("found    %s\nexpected %s", text, expected)
	}
	got := arrives(t, everywhere[T]{Alone: value, Keys: map[T]bool{value: true}})
	if got.Alone != value || len(got.Keys) != 1 || !got.Keys[value] {
		t.Errorf("found %+v", got)
	}
}

func TestAMemberOfAnEnumIsSpelledAlikeWhereverItStands(t *testing.T) {
	spelledAlike(t, shade("red"), `"RED"`, `"RED"`)
	spelledAlike(t, color(3), `"color-3"`, `"color-3"`)
	spelledAlike(t, level(3), `"level 3"`, `"level 3"`)
	spelledAlike(t, code(3), `"\"3\""`, `"\"3\""`)
	spelledAlike(t, grade(3), ` 300 `, `"300"`)
	spelledAlike(t, spot{1, -2}, `[1,-2]`, `"1,-2"`)
	spelledAlike(t, time.Unix(0, 0).UTC(), `"1970-01-01T00:00:00Z"`, `"1970-01-01T00:00:00Z"`)
	notReceived[map[level]int](t, `{"3":1}`)
	notReceived[map[code]int](t, `{"x":1}`)
	notReceived[map[grade]int](t, `{"x":1}`, `{"[300]":1}`, `{" 300":1}`, `{"":1}`, `{"`+strings.Repeat("3", maxDigits+1)+`":1}`)
}

type everything struct {
	Slice   []*os.File
	Map     map[string]*Sender[int]
	Pointer **os.File
	Any     any
	*Sender[int]
	Nested struct{ Deeper []map[int]*Receiver[string] }
	Absent *os.File `json:",omitempty"`
	Blob   *Blob
}

type everythingReceived struct {
	Slice   []*os.File
	Map     map[string]*Sender[int]
	Pointer **os.File
	Any     *os.File
	*Sender[int]
	Nested struct{ Deeper []map[int]*Receiver[string] }
	Absent *os.File `json:",omitempty"`
	Blob   *Blob
}

func TestDescriptorsAnywhereInAMessage(t *testing.T) {
	noLeak(t)
	tx, rx := pair[everything](t, Options{})
	back := &Receiver[everythingReceived]{rx.end}
	file := func(name string) *os.File { return memfd(t, name, 0) }
	first, answers := pair[int](t, Options{})
	second, others := pair[int](t, Options{})
	strings, texts := pair[string](t, Options{})
	pointed := file("pointer")
	message := everything{
		Slice:   []*os.File{file("zero"), file("one")},
		Map:     map[string]*Sender[int]{"a": first},
		Pointer: &pointed,
		Any:     file("any"),
		Sender:  second,
		Blob:    must[*Blob](t)(NewBlob([]byte("blob"))),
	}
	message.Nested.Deeper = []map[int]*Receiver[string]{{5: texts}}
	check(t, tx.Send(within(t), message))
	CloseAll(message)
	expect(t, first.Close(), ErrClosed)

	got := must[everythingReceived](t)(back.Recv(within(t)))
	for file, expected := range map[*os.File]string{
		got.Slice[0]: "zero", got.Slice[1]: "one", *got.Pointer: "pointer", got.Any: "any",
	} {
		if found := content(t, file); found != expected {
			t.Errorf("found %q, expected %q", found, expected)
		}
	}
	check(t, got.Map["a"].Send(within(t), 1))
	check(t, got.Sender.Send(within(t), 2))
	check(t, strings.Send(within(t), "three"))
	if must[int](t)(answers.Recv(within(t))) != 1 || must[int](t)(others.Recv(within(t))) != 2 ||
		must[string](t)(got.Nested.Deeper[0][5].Recv(within(t))) != "three" || got.Absent != nil {
		t.Error("other channels than were sent")
	}
	CloseAll(got)
	for _, rx := range []*Receiver[int]{answers, others} {
		_, err := rx.Recv(within(t))
		expect(t, err, ErrDisconnected)
		rx.Close()
	}
	strings.Close()
	tx.Close()
	rx.Close()
}

func TestDescriptorsOfConcurrentMessagesAreNotMixedUp(t *testing.T) {
	noLeak(t)
	type named struct {
		Name  string
		Files []*os.File
	}
	tx, rx := pair[named](t, Options{})
	ctx := within(t)
	var senders, receivers sync.WaitGroup
	for g := 0; g < 4; g++ {
		senders.Add(1)
		receivers.Add(1)
		name := fmt.Sprint("file ", g)
		files := []*os.File{memfd(t, name, 0), memfd(t, name, 0), memfd(t, name, 0)}
		go func(g int) {
			defer senders.Done()
			defer closeFiles(files)
			for i := 0; i < 300; i++ {
				count := (g + i) % 4
				if err := tx.Send(ctx, named{name, files[:count]}); err != nil {
					t.Error(err)
				}
				// One that fails midway.
				_ = tx.TrySend(named{"\xff", files})
			}
		}(g)
		go func() {
			defer receivers.Done()
			for {
				got, err := rx.Recv(ctx)
				if err != nil {
					if err != ErrDisconnected {
						t.Error(err)
					}
					return
				}
				for _, file := range got.Files {
					bytes := make([]byte, 6)
					if _, err := file.ReadAt(bytes, 0); err != nil || string(bytes) != got.Name {
						t.Errorf("%q came with %q: %v", bytes, got.Name, err)
					}
				}
				CloseAll(got)
			}
		}()
	}
	senders.Wait()
	tx.Close()
	receivers.Wait()
	rx.Close()
}

type panics struct{}

func (*panics) UnmarshalJSON([]byte) error { panic("on purpose") }

func TestWhatWasReceivedIsClosedOnErrorsMidway(t *testing.T) {
	noLeak(t)
	tx, rx := pair[any](t, Options{})
	end, other := pair[int](t, Options{})
	file := memfd(t, "", 0)
	blob := must[*Blob](t)(NewBlob([]byte("blob")))
	before := openFds(t)
	type target struct {
		File  *os.File
		End   *Sender[int]
		Blob  *Blob
		Then  int
		Panic *panics `json:",omitempty"`
	}
	back := &Receiver[target]{rx.end}
	good := map[string]any{"File": file, "End": end, "Blob": blob, "Then": 1}
	for _, wrong := range []map[string]any{
		{"Then": "x"}, {"Then": nil}, {"End": blob}, {"Blob": file}, {"More": file}, {"File": 7}, {"File": nil},
	} {
		message := map[string]any{}
		for name, member := range good {
			message[name] = member
		}
		for name, member := range wrong {
			message[name] = member
		}
		check(t, tx.Send(within(t), message))
		got, err := back.Recv(within(t))
		if err == nil || got != (target{}) {
			t.Errorf("%v: found %v", wrong, got)
		}
		if after := openFds(t); before != after {
			t.Fatalf("%v: open before:\n%s\nafter:\n%s", wrong, before, after)
		}
	}
	good["Panic"] = 1
	check(t, tx.Send(within(t), good))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = back.Recv(within(t))
	}()
	if after := openFds(t); before != after {
		t.Fatalf("a panic: open before:\n%s\nafter:\n%s", before, after)
	}
	delete(good, "Panic")
	check(t, tx.Send(within(t), good))
	CloseAll(must[target](t)(back.Recv(within(t))))
	CloseAll(good)
	other.Close()
	tx.Close()
	rx.Close()
}

// ends runs what must come to an end.
func ends(t *testing.T, do func()) {
	t.Helper()
	ended := make(chan bool)
	go func() {
		defer close(ended)
		do()
	}()
	select {
	case <-ended:
	case <-within(t).Done():
		t.Fatal("it does not end")
	}
}

func TestOnlyTypesThatMayHoldDescriptorsAreLookedInto(t *testing.T) {
	type leaf struct {
		Name string
		Next *leaf
		Rows [][]float64
	}
	type branch struct {
		Leaves map[string][]leaf
		Back   *branch
		Reply  *Sender[int]
	}
	for _, holds := range []any{&branch{}, []branch{}, [2]*os.File{}, map[int]any{}, []*Blob{}} {
		if !mayHold(reflect.TypeOf(holds)) {
			t.Errorf("%T is not looked into", holds)
		}
	}
	for _, holds := range []any{[][]int{}, leaf{}, &leaf{}, map[string][]leaf{}, [3][]string{}, ring{}} {
		if mayHold(reflect.TypeOf(holds)) {
			t.Errorf("%T is looked into", holds)
		}
	}
}

func TestLinkedValuesAreClosed(t *testing.T) {
	noLeak(t)
	type node struct {
		Next, Prev *node
		File       *os.File
	}
	// All descriptors are open before, and closed after.
	closes := func(value any, files ...*os.File) {
		t.Helper()
		ends(t, func() { CloseAll(value) })
		for i, file := range files {
			if err := file.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%T, file %d: found %v", value, i, err)
			}
		}
	}
	linked := func(count int) (*node, []*os.File) {
		var files []*os.File
		nodes := make([]node, count)
		for i := range nodes {
			if i < 5 || i == count-1 {
				nodes[i].File = memfd(t, "", 0)
				files = append(files, nodes[i].File)
			}
			nodes[i].Next, nodes[i].Prev = &nodes[(i+1)%count], &nodes[(i+count-1)%count]
		}
		return &nodes[0], files
	}
	for _, count := range []int{1, 3, 100_000} {
		ring, files := linked(count)
		closes(ring, files...)
	}
	files := []*os.File{memfd(t, "", 0), memfd(t, "", 0), memfd(t, "", 0)}
	list := []any{nil, nil, nil, files[0]}
	list[0], list[1], list[2] = list[:1], list, &list
	closes(list, files[0])
	table := map[string]any{"file": files[1]}
	table["x"], table["y"] = table, &table
	closes(table, files[1])
	// The first field of a struct is at its place.
	type both struct {
		First  node
		Second *os.File
	}
	two := &both{Second: files[2]}
	closes([]any{two, &two.First}, files[2])
	// They cannot be sent. Whoever hands them over, or works for a pool, has them closed none the less.
	ring, files := linked(3)
	ends(t, func() {
		var encode *EncodeError
		if err := Spawn(exec.Command("/missing"), ring); !errors.As(err, &encode) {
			t.Errorf("found %v", err)
		}
	})
	closes(ring, files...)
	jobs, source := pair[int](t, Options{})
	results, outcome := pair[jobResult[*node]](t, Options{})
	check(t, jobs.Send(within(t), 1))
	jobs.Close()
	ring, files = linked(3)
	ends(t, func() {
		args := workerArgs[int, *node]{Jobs: source, Results: results}
		if err := workOn(args, func(int) (*node, error) { return ring, nil }); err != nil {
			t.Error(err)
		}
	})
	results.Close()
	if result := must[jobResult[*node]](t)(outcome.Recv(within(t))); result.Err == nil {
		t.Errorf("found %+v", result)
	}
	closes(ring, files...)
	source.Close()
	outcome.Close()
}

func TestEnumsAreReadAsRustReadsThem(t *testing.T) {
	tx, rx := pair[choice](t, Options{})
	for _, text := range []string{`"Stop"`, `{"Stop":null}`} {
		rawSend(t, tx.end, packetOf(text), nil)
		if got := must[choice](t)(rx.Recv(within(t))); !got.Stop {
			t.Errorf("%s: found %+v", text, got)
		}
	}
	for _, text := range []string{`{"Stop":true}`, `"stop"`, `"Go"`, `{"Go":null}`, `{"Fly":1}`, `{}`, `{"Go":1,"Go":2}`} {
		rawSend(t, tx.end, packetOf(text), nil)
		if got, err := rx.Recv(within(t)); err == nil {
			t.Errorf("%s: found %+v", text, got)
		}
	}
}

func TestARepeatedKeyOfAMapOfDescriptorsClosesTheFirst(t *testing.T) {
	noLeak(t)
	tx, rx := pair[map[string]*os.File](t, Options{})
	files := []*os.File{memfd(t, "first", 0), memfd(t, "second", 0)}
	rawSend(t, tx.end, packetOf(`{"x":0,"x":1}`), files)
	got := must[map[string]*os.File](t)(rx.Recv(within(t)))
	if content(t, got["x"]) != "second" {
		t.Error("not the last one")
	}
	CloseAll(got)
	closeFiles(files)
	tx.Close()
	rx.Close()
}

func TestValuesAreReadAsSpecified(t *testing.T) {
	type decoded struct {
		inner
		*hidden2
		List  [2]int
		Bytes []byte
		Keys  map[uint8]bool
		Color color
		When  time.Time
		Raw   json.RawMessage
		Maybe *string
		Any   any
		Big   *big.Int
	}
	read := func(text string) (decoded, error) {
		tx, rx := pair[decoded](t, Options{})
		rawSend(t, tx.end, packetOf(text), nil)
		return rx.Recv(within(t))
	}
	const rest = `"List":[1,2],"Bytes":[1],"Keys":{"1":true},"Color":"color-7","When":"1970-01-01T00:00:00Z",` +
		`"Raw":{"x": [1]}`
	got, err := read(`{"X":1,` + rest + `,"Maybe":null,"Any":[18446744073709551616,1.50],` +
		`"Big":1267650600228229401496703205376}`)
	check(t, err)
	if got.X != 1 || got.List != [2]int{1, 2} || got.Keys[1] != true || got.Color != 7 || got.When.Unix() != 0 ||
		string(got.Raw) != `{"x": [1]}` || got.Maybe != nil || got.Big.BitLen() != 101 ||
		!reflect.DeepEqual(got.Any, []any{json.Number("18446744073709551616"), json.Number("1.50")}) {
		t.Errorf("found %+v", got)
	}
	if _, err := read(`{"X":1,` + rest + `}`); err != nil {
		t.Errorf("pointers and interfaces may be missing: %v", err)
	}
	for _, c := range [][2]string{
		{`{` + rest + `}`, `missing member "X"`},
		{`{"X":1,"List":[1]}`, ".List: found a list of 1, expected 2"},
		{`{"X":1,"List":[1,2,3]}`, ".List[2]: expected a list of 2"},
		{`{"X":1,"x":2,` + rest + `,"W":5}`, "cannot be made, it is not exported"},
		{`{"Keys":{"256":true}}`, "does not fit uint8"},
		{`{"Keys":{"x":true}}`, "expected a number"},
		{`{"Color":5}`, "expected a string"},
		{`{"When":"x"}`, "cannot parse"},
		{`{"Maybe":"\udc00\udc00"}`, "lone surrogate"},
		{`{"X":1e0}`, "the number 1e0 does not fit int"},
	} {
		if _, err := read(c[0]); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("found %v, expected %s", err, c[1])
		}
	}
	tx, rx := pair[fmt.Stringer](t, Options{})
	rawSend(t, tx.end, packetOf("1"), nil)
	if _, err := rx.Recv(within(t)); err == nil {
		t.Error("no error")
	}
	pointers, back := pair[self](t, Options{})
	rawSend(t, pointers.end, packetOf("1"), nil)
	if _, err := back.Recv(within(t)); err == nil {
		t.Error("no error")
	}
}

func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e3,"\u00e9\ud83d\ude00",true,false,null],"":{}}`, `[`, `"\ud800"`, `-0`, `01`, ` 1 `, "\x00", `"\`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := scanner{text: []byte(text)}
		p := s.skip()
		if p == nil {
			p = s.end()
		}
		// encoding/json takes what is no UTF-8, lone surrogates and more levels.
		if p == nil && !json.Valid([]byte(text)) {
			t.Errorf("%q is no JSON", text)
		}
		if p != nil && json.Valid([]byte(text)) && !strings.Contains(p.reason, "surrogate") &&
			!strings.Contains(p.reason, "deeper") {
			t.Errorf("%q is JSON: %s", text, p.text())
		}
	})
}
