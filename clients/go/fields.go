//go:build linux

package wormhole

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"unicode/utf8"
)

// Tuple, embedded in a struct, makes it a list of its fields in their order, as a Rust tuple is written.
//
//	type Args struct {
//		wormhole.Tuple
//		Question string
//		Answer   *wormhole.Sender[string]
//	}
type Tuple struct{}

// Enum, embedded in a struct, makes it one of its fields, as a Rust enum is written. A variant that holds
// something is a pointer, one that holds nothing a bool. Exactly one must be set.
//
//	type Command struct {
//		wormhole.Enum
//		Quit bool      // "Quit"
//		Move *Point    // {"Move":{"x":1,"y":2}}
//	}
type Enum struct{}

// problem is what is wrong with a value, and where.
type problem struct {
	path   string
	reason string
	err    error
}

func wrong(format string, arguments ...any) *problem {
	return &problem{reason: fmt.Sprintf(format, arguments...)}
}

func failed(err error) *problem {
	return &problem{reason: err.Error(), err: err}
}

func (p *problem) in(part string) *problem {
	p.path = part + p.path
	return p
}

// clip shortens a text that an error quotes, which may be a whole message, before it is copied.
func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	end := most
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

func (p *problem) text() string {
	if p.path == "" {
		return excerpt(p.reason)
	}
	return excerpt(p.path + ": " + p.reason)
}

// How a struct is written.
type layout int

const (
	object layout = iota
	tuple
	enum
)

type shape struct {
	layout layout
	fields []field
	byName map[string]int
	// Why there can be no such message.
	problem string
}

type field struct {
	name      string
	index     []int
	typ       reflect.Type
	tagged    bool
	omitEmpty bool
	// May be missing.
	optional bool
}

var (
	fileType            = reflect.TypeOf((*os.File)(nil))
	numberType          = reflect.TypeOf(json.Number(""))
	tupleType           = reflect.TypeOf(Tuple{})
	enumType            = reflect.TypeOf(Enum{})
	endType             = reflect.TypeOf((*end)(nil))
	descriptorType      = reflect.TypeOf((*descriptor)(nil)).Elem()
	marshalerType       = reflect.TypeOf((*json.Marshaler)(nil)).Elem()
	unmarshalerType     = reflect.TypeOf((*json.Unmarshaler)(nil)).Elem()
	textMarshalerType   = reflect.TypeOf((*encoding.TextMarshaler)(nil)).Elem()
	textUnmarshalerType = reflect.TypeOf((*encoding.TextUnmarshaler)(nil)).Elem()
	ownPackage          = enumType.PkgPath()
	bigPackage          = reflect.TypeOf(big.Int{}).PkgPath()
)

// descriptor is what the pointers of this package have in common that stand in a text as an index.
type descriptor interface {
	// hold keeps the descriptor open until release is called.
	hold() (fd int, release func(), err error)
	// adopt takes over a descriptor for a zero value. If it fails it closes it.
	adopt(fd int) error
	Close() error
}

// isDescriptor tells whether values of a type travel beside the text. That a type has the methods is not enough: a
// struct has those of what it embeds.
func isDescriptor(t reflect.Type) bool {
	return t == fileType ||
		t.Kind() == reflect.Pointer && t.Elem().PkgPath() == ownPackage && t.Implements(descriptorType)
}

// hasMethods tells whether a type brings its own way of being written, as one of the interfaces. Methods that a
// struct has got from a descriptor that it embeds do not count.
func hasMethods(t, wanted reflect.Type) bool {
	if !t.Implements(wanted) || isDescriptor(t) {
		return false
	}
	return !embedsDescriptor(t, 0)
}

func embedsDescriptor(t reflect.Type, depth int) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || depth > maxDepth {
		return false
	}
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		if field.Anonymous && (isDescriptor(field.Type) || embedsDescriptor(field.Type, depth+1)) {
			return true
		}
	}
	return false
}

var shapes sync.Map // reflect.Type -> *shape

func shapeOf(t reflect.Type) *shape {
	if known, ok := shapes.Load(t); ok {
		return known.(*shape)
	}
	found, _ := shapes.LoadOrStore(t, newShape(t))
	return found.(*shape)
}

func newShape(t reflect.Type) *shape {
	s := &shape{byName: make(map[string]int)}
	fields, reason := visibleFields(t)
	s.fields, s.problem = fields, reason
	if t == fileType.Elem() {
		s.problem = "a descriptor must be a pointer, *os.File"
	}
	for i, f := range s.fields {
		s.byName[f.name] = i
	}
	for i := 0; i < t.NumField(); i++ {
		switch t.Field(i).Type {
		case tupleType:
			s.layout = tuple
		case enumType:
			s.layout = enum
		case endType:
			s.problem = "a channel end must be a pointer, *Sender or *Receiver"
		}
	}
	if s.layout == enum {
		for _, f := range s.fields {
			if kind := f.typ.Kind(); kind != reflect.Bool && kind != reflect.Pointer {
				s.problem = fmt.Sprintf("variant %s is neither a bool nor a pointer", f.name)
			}
			if len(f.index) > 1 {
				s.problem = fmt.Sprintf("variant %s is in an embedded struct", f.name)
			}
		}
	}
	return s
}

// visibleFields finds the members of a struct as encoding/json does: the fields of embedded structs are its
// own, the least nested one of a name hides the others, among equals one with a tag does, and otherwise there is none.
func visibleFields(t reflect.Type) (fields []field, reason string) {
	type level struct {
		typ      reflect.Type
		index    []int
		optional bool
	}
	best := make(map[string][]field)
	seen := map[reflect.Type]bool{}
	for current := []level{{typ: t}}; len(current) > 0; {
		var next []level
		for _, l := range current {
			for i := 0; i < l.typ.NumField(); i++ {
				sf := l.typ.Field(i)
				if sf.Type == tupleType || sf.Type == enumType {
					continue
				}
				inner := sf.Type
				if inner.Kind() == reflect.Pointer {
					inner = inner.Elem()
				}
				embedded := sf.Anonymous && inner.Kind() == reflect.Struct && !isDescriptor(sf.Type)
				if !sf.IsExported() && !embedded {
					continue
				}
				tag := sf.Tag.Get("json")
				if tag == "-" {
					continue
				}
				options := strings.Split(tag, ",")
				name := options[0]
				index := append(append([]int(nil), l.index...), i)
				if embedded && name == "" {
					viaPointer := sf.Type.Kind() == reflect.Pointer
					next = append(next, level{inner, index, l.optional || viaPointer})
					continue
				}
				if !sf.IsExported() {
					continue
				}
				f := field{name: name, index: index, typ: sf.Type, tagged: name != ""}
				if name == "" {
					f.name = sf.Name
				}
				for _, option := range options[1:] {
					switch option {
					case "omitempty":
						f.omitEmpty = true
					case "string":
						reason = fmt.Sprintf("field %s has the option string, which no peer would understand", sf.Name)
					}
				}
				nullable := sf.Type.Kind() == reflect.Pointer || sf.Type.Kind() == reflect.Interface
				f.optional = l.optional || f.omitEmpty || nullable && !isDescriptor(sf.Type)
				best[f.name] = append(best[f.name], f)
			}
		}
		for _, l := range current {
			seen[l.typ] = true
		}
		current = nil
		for _, l := range next {
			if !seen[l.typ] {
				current = append(current, l)
			}
		}
	}
	for _, same := range best {
		if f, ok := dominant(same); ok {
			fields = append(fields, f)
		}
	}
	sort.Slice(fields, func(i, j int) bool { return before(fields[i].index, fields[j].index) })
	return fields, reason
}

// dominant picks the field that stands for a name. They come with the least nested first.
func dominant(same []field) (field, bool) {
	depth := len(same[0].index)
	var plain, tagged []field
	for _, f := range same {
		switch {
		case len(f.index) > depth:
		case f.tagged:
			tagged = append(tagged, f)
		default:
			plain = append(plain, f)
		}
	}
	switch {
	case len(tagged) == 1:
		return tagged[0], true
	case len(tagged) == 0 && len(plain) == 1:
		return plain[0], true
	}
	return field{}, false
}

func before(a, b []int) bool {
	for i := range a {
		if i == len(b) {
			return false
		}
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return len(a) < len(b)
}
