//go:build linux

package wormhole

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The table "What JSON cannot carry" of PROTOCOL.md, row by row: what happens in Go is what the table says. What arrives
// from Rust, and there, is in tests/languages/clients/table.rs.

// perhaps is a number or nothing, as the nullable types of databases are.
type perhaps struct {
	Number int
	IsSet  bool
}

func (p perhaps) MarshalJSON() ([]byte, error) {
	if !p.IsSet {
		return []byte("null"), nil
	}
	return json.Marshal(p.Number)
}

func (p *perhaps) UnmarshalJSON(text []byte) error {
	*p = perhaps{IsSet: string(text) != "null"}
	return json.Unmarshal(text, &p.Number)
}

type sameText int

func (sameText) MarshalText() ([]byte, error) { return []byte("same"), nil }

type badText int

func (badText) MarshalText() ([]byte, error) { return []byte("\xff"), nil }

type withKeys struct {
	Keys map[uint32]uint32
	Wide *big.Int
}

// Its fields are those of withKeys, as if that was flattened.
type flattened struct{ withKeys }

type variants struct {
	Enum
	Maybe **float64
}

// notSent checks that its sender refuses a value, and that the channel works as before.
func notSent(t *testing.T, value any, expected string) {
	t.Helper()
	tx, rx := pair[any](t, Options{})
	var encode *EncodeError
	if err := tx.Send(within(t), value); !errors.As(err, &encode) || !strings.Contains(err.Error(), expected) {
		t.Errorf("%v: found %v, expected %s", value, err, expected)
	}
	_, err := rx.TryRecv()
	expect(t, err, ErrEmpty)
	check(t, tx.Send(within(t), true))
	if got := must[any](t)(rx.TryRecv()); got != true {
		t.Errorf("found %v", got)
	}
	check(t, tx.Close())
	check(t, rx.Close())
}

// arrives sends a value and gives what arrives.
func arrives[T any](t *testing.T, value T) T {
	t.Helper()
	tx, rx := pair[T](t, Options{})
	check(t, tx.Send(within(t), value))
	got := must[T](t)(rx.TryRecv())
	check(t, tx.Close())
	check(t, rx.Close())
	return got
}

// reads gives what a text of a foreign program is.
func reads[T any](t *testing.T, text string) (T, error) {
	t.Helper()
	tx, rx := pair[T](t, Options{})
	rawSend(t, tx.end, packetOf(text), nil)
	got, err := rx.TryRecv()
	check(t, tx.Close())
	check(t, rx.Close())
	return got, err
}

func notReceived[T any](t *testing.T, texts ...string) {
	t.Helper()
	var decode *DecodeError
	for _, text := range texts {
		if got, err := reads[T](t, text); !errors.As(err, &decode) {
			t.Errorf("%s: found %v, %v", text, got, err)
		}
	}
}

func TestWhatJSONCannotCarry(t *testing.T) {
	noLeak(t)

	t.Run("NaN and infinities", func(t *testing.T) {
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			for _, value := range []any{
				bad, &bad, float32(bad), []float64{bad}, map[string]float32{"x": float32(bad)}, map[float64]int{bad: 1},
				struct{ X any }{bad},
			} {
				notSent(t, value, "JSON has no number for")
			}
		}
		notReceived[float64](t, "null", "NaN", "Infinity", "-Infinity", "1e999")
		if got := must[*float64](t)(reads[*float64](t, "null")); got != nil {
			t.Errorf("found %v", *got)
		}
	})

	t.Run("something that is written null", func(t *testing.T) {
		var nothing *float64
		var loose any
		const expected = "would arrive as nil itself"
		notSent(t, &nothing, expected)
		notSent(t, &loose, expected)
		notSent(t, struct{ X **float64 }{&nothing}, expected)
		loose = nothing
		notSent(t, []any{&loose}, expected)
		for _, text := range []string{"null", " \tnull\r\n"} {
			raw := json.RawMessage(text)
			notSent(t, &raw, expected)
			notSent(t, struct{ X *json.RawMessage }{&raw}, expected)
			if got := arrives(t, raw); string(got) != "null" {
				t.Errorf("found %s", got)
			}
		}
		// Where nothing may not stand it is refused, although methods of these types would take it.
		notReceived[big.Int](t, "null", " null ")
		notReceived[time.Time](t, "null")
		notReceived[[]big.Int](t, "[1,null]")
		notReceived[map[string]time.Time](t, `{"x":null}`)
		notReceived[struct{ X big.Int }](t, `{"X":null}`)
		// But where it is what a type writes of itself.
		several := []perhaps{{}, {7, true}}
		if got := arrives(t, several); !reflect.DeepEqual(got, several) {
			t.Errorf("found %v", got)
		}
		notReceived[perhaps](t, `"x"`)
		if got := must[*time.Time](t)(reads[*time.Time](t, "null")); got != nil {
			t.Errorf("found %v", got)
		}
		half := 0.5
		something := &half
		if got := arrives(t, &something); **got != half {
			t.Errorf("found %v", **got)
		}
		// The name of a variant is around it.
		if got := arrives(t, variants{Maybe: &nothing}); got.Maybe == nil || *got.Maybe != nil {
			t.Errorf("found %v", got)
		}
		if got := arrives(t, variants{Maybe: &something}); **got.Maybe != half {
			t.Errorf("found %v", got)
		}
	})

	t.Run("keys", func(t *testing.T) {
		notSent(t, map[[2]int]int{{}: 1}, "cannot be written")
		notSent(t, map[struct{ X int }]int{{}: 1}, "cannot be written")
		notSent(t, map[any]int{"x": 1}, "cannot be written")
		notSent(t, map[sameText]int{1: 1, 2: 2}, `two keys that are both written "same"`)
		notSent(t, []any{map[string]any{"x": map[sameText]int{1: 1, 2: 2, 3: 3}}}, "two keys")
		// From elsewhere: the last one counts, in a record it is refused.
		if got := must[map[int]int](t)(reads[map[int]int](t, `{"1":1,"1":2}`)); got[1] != 2 {
			t.Errorf("found %v", got)
		}
		notReceived[struct{ X int }](t, `{"X":1,"X":2}`)
		// In a message without a type they are text.
		got := arrives[any](t, []any{map[int]string{1: "a"}, map[bool]any{true: map[color]int{2: 1}}})
		expected := []any{
			map[string]any{"1": "a"}, map[string]any{"true": map[string]any{"color-2": json.Number("1")}},
		}
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("found %v", got)
		}
		// What serde buffers Go does not.
		value := flattened{withKeys{map[uint32]uint32{7: 2}, new(big.Int).Lsh(big.NewInt(1), 127)}}
		if got := arrives(t, value); !reflect.DeepEqual(got, value) {
			t.Errorf("found %v", got)
		}
	})

	t.Run("numbers", func(t *testing.T) {
		for _, digits := range []string{"9007199254740993", "18446744073709551617", "-9223372036854775809"} {
			if got := arrives[any](t, json.Number(digits)); got != json.Number(digits) {
				t.Errorf("found %v", got)
			}
			wide, _ := new(big.Int).SetString(digits, 10)
			if got := arrives(t, wide); got.Cmp(wide) != 0 {
				t.Errorf("found %v", got)
			}
		}
		// No longer than Python takes.
		longest := strings.Repeat("9", maxDigits)
		for _, digits := range []string{longest, "-" + longest} {
			wide, _ := new(big.Int).SetString(digits, 10)
			if got := arrives(t, wide); got.Cmp(wide) != 0 {
				t.Errorf("found %v", got)
			}
			notReceived[*big.Int](t, digits+"0", strings.Repeat(digits, 40))
			notReceived[flattened](t, `{"Keys":{},"Wide":`+digits+`0}`)
			notSent(t, wide.Mul(wide, big.NewInt(10)), "a number of more than 4300 digits")
			notSent(t, json.RawMessage(" "+digits+"0 "), "a number of more than 4300 digits")
			quoted := `"` + digits + `0"` // as the others of math/big are
			notReceived[*big.Rat](t, quoted)
			notReceived[*big.Float](t, quoted)
			notSent(t, new(big.Rat).SetInt(wide), "a number of more than 4300 digits")
		}
		notReceived[uint64](t, "18446744073709551616")
		notReceived[int64](t, "-9223372036854775809", "1.0", "-0")
		if got := must[float64](t)(reads[float64](t, "9007199254740993")); got != 1<<53 {
			t.Errorf("found %v", got)
		}
		for _, number := range []float64{0.1 + 0.2, 1e16, 1e22, 1e23, 5e-324, math.MaxFloat64, math.Copysign(0, -1)} {
			if got := arrives(t, number); math.Float64bits(got) != math.Float64bits(number) {
				t.Errorf("found %v, expected %v", got, number)
			}
		}
		narrow := float32(0.1)
		if got := arrives(t, narrow); got != narrow {
			t.Errorf("found %v", got)
		}
		if text, _ := textOf(t, narrow); text != "0.1" {
			t.Errorf("found %s", text)
		}
	})

	t.Run("text", func(t *testing.T) {
		const expected = "not UTF-8"
		for _, value := range []any{
			"\xff", []string{"\xed\xa0\x80"}, map[string]int{"\xff": 1}, badText(1), map[badText]int{1: 1},
			json.RawMessage("\"\xff\""),
		} {
			notSent(t, value, expected)
		}
		notReceived[any](t, `"\ud800"`, `{"\udc00":1}`, "\"\xff\"")
		const text = "\x00\u2028😀\uffff"
		if got := arrives(t, text); got != text {
			t.Errorf("found %q", got)
		}
	})

	t.Run("times", func(t *testing.T) {
		now := time.Now()
		got := arrives(t, now)
		if !got.Equal(now) || got == now {
			t.Errorf("found %v, expected %v without its monotonic clock", got, now)
		}
		notSent(t, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "year")
		notSent(t, time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), "year")
	})

	t.Run("levels", func(t *testing.T) {
		deep := any([]any{})
		for i := 1; i < 127; i++ {
			deep = []any{deep}
		}
		if got := arrives(t, deep); !reflect.DeepEqual(got, deep) {
			t.Errorf("found %v", got)
		}
		notSent(t, []any{deep}, "deeper than 127 levels")
		notSent(t, map[string]any{"x": deep}, "deeper than 127 levels")
		endless := []any{nil}
		endless[0] = endless
		notSent(t, endless, "deeper than 127 levels")
	})

	t.Run("nothing", func(t *testing.T) {
		type lists struct {
			List []int
			Map  map[string]int
		}
		if got := arrives(t, lists{}); got.List == nil || got.Map == nil || len(got.List)+len(got.Map) > 0 {
			t.Errorf("found %#v", got)
		}
	})
}
