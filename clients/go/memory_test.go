//go:build linux

package wormhole

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// resident tells how much memory this process has, and has had at most, in bytes.
func resident(t *testing.T) (now, most int) {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile("/proc/self/status")))
	number := func(name string) int {
		_, rest, _ := strings.Cut(text, name+":")
		return must[int](t)(strconv.Atoi(strings.Fields(rest)[0])) << 10
	}
	return number("VmRSS"), number("VmHWM")
}

// growth gives by how much this process grows while a message of a type is received, as a multiple of its text.
func growth[T any](t *testing.T, text string) float64 {
	t.Helper()
	tx, rx := pair[T](t, Options{})
	rest := memfd(t, text, 0)
	header := packetOf("")
	for i, length := 0, len(text); i < 8; i++ {
		header[i] = byte(length >> (8 * i))
	}
	rawSend(t, tx.end, header, []*os.File{rest})
	rest.Close()
	debug.FreeOSMemory()
	check(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	before, _ := resident(t)
	got := must[T](t)(rx.TryRecv())
	_, most := resident(t)
	runtime.KeepAlive(got)
	return float64(most-before) / float64(len(text))
}

// How much memory a received message takes up, as a multiple of its text: its type decides. The figures are in
// SECURITY.md.
func TestAMessageTakesUpAMultipleOfItsTextThatItsTypeDecides(t *testing.T) {
	const size = 1 << 20
	list := func(item string) string {
		return "[" + strings.Repeat(item+",", size/(len(item)+1)) + item + "]"
	}
	keys := []byte("{")
	for i := 0; len(keys) < size; i++ {
		keys = append(strconv.AppendInt(append(keys, '"'), int64(i), 10), `":0,`...)
	}
	keys[len(keys)-1] = '}'
	type point struct {
		X int `json:"x"`
	}
	for _, kind := range []struct {
		name string
		grow func() float64
		most float64 // with the race detector, too
	}{
		{"[]byte", func() float64 { return growth[[]byte](t, list("0")) }, 40},
		{"[]int64", func() float64 { return growth[[]int64](t, list("0")) }, 80},
		{"[][]byte of []", func() float64 { return growth[[][]byte](t, list("[]")) }, 120},
		{"[][]byte of [0]", func() float64 { return growth[[][]byte](t, list("[0]")) }, 120},
		{"any of {}", func() float64 { return growth[any](t, list("{}")) }, 200},
		{`any of {"":0}`, func() float64 { return growth[any](t, list(`{"":0}`)) }, 300},
		{"any, nested lists", func() float64 {
			return growth[any](t, list(strings.Repeat("[", 120)+strings.Repeat("]", 120)))
		}, 150},
		{"any, nested objects", func() float64 {
			return growth[any](t, list(strings.Repeat(`{"":`, 120)+"0"+strings.Repeat("}", 120)))
		}, 200},
		{"records", func() float64 { return growth[[]point](t, list(`{"x":0}`)) }, 40},
		{"maps", func() float64 { return growth[[]map[int]int](t, list(`{"1":1}`)) }, 200},
		{"keys", func() float64 { return growth[map[int]int](t, string(keys)) }, 60},
		{"string", func() float64 { return growth[string](t, `"`+strings.Repeat("x", size)+`"`) }, 20},
		{"string with an escape", func() float64 { return growth[string](t, `"\n`+strings.Repeat("x", size)+`"`) }, 30},
	} {
		found := kind.grow()
		t.Logf("%s: %.1f", kind.name, found)
		if found < 0.5 || found > kind.most {
			t.Errorf("%s: %.1f times its text, expected at most %.0f", kind.name, found, kind.most)
		}
	}
}
