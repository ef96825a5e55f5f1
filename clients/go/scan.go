//go:build linux

package wormhole

import (
	"unicode/utf8"
)

// The deepest that arrays and objects may be nested.
const maxDepth = 127

// scanner reads JSON (RFC 8259), strictly. The text must be known to be UTF-8.
type scanner struct {
	text  []byte
	at    int
	depth int
}

func (s *scanner) wrong(format string, arguments ...any) *problem {
	p := wrong(format, arguments...)
	p.reason += wrong(" at byte %d of the text", s.at).reason
	return p
}

// peek skips white space and gives the next byte, 0 at the end of the text.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// expected is the problem with the next byte.
func (s *scanner) expected(what string) *problem {
	if s.peek() == 0 && s.at >= len(s.text) {
		return s.wrong("the text ends, expected %s", what)
	}
	r, _ := utf8.DecodeRune(s.text[s.at:])
	return s.wrong("found %q, expected %s", r, what)
}

func (s *scanner) end() *problem {
	if s.peek(); s.at < len(s.text) {
		return s.expected("the end of the text")
	}
	return nil
}

func (s *scanner) literal(word string) *problem {
	if len(s.text)-s.at < len(word) || string(s.text[s.at:s.at+len(word)]) != word {
		return s.expected(word)
	}
	s.at += len(word)
	return nil
}

// enter reads the bracket that opens an array or an object, and tells whether it is empty, closing bracket read.
func (s *scanner) enter(open, shut byte, what string) (empty bool, p *problem) {
	if s.peek() != open {
		return false, s.expected(what)
	}
	if s.depth++; s.depth > maxDepth {
		return false, s.wrong("nested deeper than %d levels", maxDepth)
	}
	s.at++
	if s.peek() == shut {
		s.at++
		s.depth--
		return true, nil
	}
	return false, nil
}

// next reads the comma before the next element, or the closing bracket.
func (s *scanner) next(shut byte) (more bool, p *problem) {
	switch s.peek() {
	case ',':
		s.at++
		return true, nil
	case shut:
		s.at++
		s.depth--
		return false, nil
	}
	return false, s.expected("a comma or " + string(rune(shut)))
}

// array calls element for each element of an array.
func (s *scanner) array(element func(i int) *problem) *problem {
	empty, p := s.enter('[', ']', "an array")
	if empty || p != nil {
		return p
	}
	for i := 0; ; i++ {
		if p := element(i); p != nil {
			return p.in(wrong("[%d]", i).reason)
		}
		if more, p := s.next(']'); !more || p != nil {
			return p
		}
	}
}

// object calls member for each member of an object, before its value.
func (s *scanner) object(member func(name string) *problem) *problem {
	empty, p := s.enter('{', '}', "an object")
	if empty || p != nil {
		return p
	}
	for {
		if s.peek() != '"' {
			return s.expected("a string as a key")
		}
		name, p := s.str()
		if p != nil {
			return p
		}
		if s.peek() != ':' {
			return s.expected("a colon")
		}
		s.at++
		if p := member(name); p != nil {
			return p.in("." + clip(name))
		}
		if more, p := s.next('}'); !more || p != nil {
			return p
		}
	}
}

// number reads a number and gives its text.
func (s *scanner) number() (string, *problem) {
	s.peek()
	start := s.at
	digits := func() bool {
		first := s.at
		for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
			s.at++
		}
		return s.at > first
	}
	is := func(options string) bool {
		for i := 0; i < len(options); i++ {
			if s.at < len(s.text) && s.text[s.at] == options[i] {
				s.at++
				return true
			}
		}
		return false
	}
	is("-")
	whole := s.at
	if !digits() {
		return "", s.expected("a number")
	}
	if s.text[whole] == '0' && s.at > whole+1 {
		s.at = whole + 1
		return "", s.wrong("a digit after a leading zero")
	}
	if is(".") && !digits() {
		return "", s.expected("a digit")
	}
	if is("eE") {
		is("+-")
		if !digits() {
			return "", s.expected("a digit")
		}
	}
	return string(s.text[start:s.at]), nil
}

// str reads a string.
func (s *scanner) str() (string, *problem) {
	if s.peek() != '"' {
		return "", s.expected("a string")
	}
	s.at++
	start := s.at
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return string(s.text[start : s.at-1]), nil
		case c == '\\':
			return s.escaped(append([]byte(nil), s.text[start:s.at]...))
		case c < ' ':
			return "", s.wrong("a control character in a string")
		}
	}
	return "", s.expected(`a "`)
}

// escaped reads on from the first escape of a string.
func (s *scanner) escaped(text []byte) (string, *problem) {
	for s.at < len(s.text) {
		c := s.text[s.at]
		switch {
		case c == '"':
			s.at++
			return string(text), nil
		case c < ' ':
			return "", s.wrong("a control character in a string")
		case c != '\\':
			text = append(text, c)
			s.at++
			continue
		}
		if s.at+1 >= len(s.text) {
			break
		}
		escape := s.text[s.at+1]
		const plain, meant = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		found := -1
		for i := 0; i < len(plain); i++ {
			if escape == plain[i] {
				found = i
			}
		}
		switch {
		case found >= 0:
			text = append(text, meant[found])
			s.at += 2
		case escape == 'u':
			r, p := s.unicode()
			if p != nil {
				return "", p
			}
			text = utf8.AppendRune(text, r)
		default:
			return "", s.wrong("an unknown escape")
		}
	}
	s.at = len(s.text)
	return "", s.expected(`a "`)
}

// unicode reads an escape, or the two of a surrogate pair.
func (s *scanner) unicode() (rune, *problem) {
	first, p := s.hex()
	if p != nil {
		return 0, p
	}
	const surrogates, low, end = 0xd800, 0xdc00, 0xe000
	if first < surrogates || first >= end {
		return first, nil
	}
	if first < low && s.at+1 < len(s.text) && s.text[s.at] == '\\' && s.text[s.at+1] == 'u' {
		second, p := s.hex()
		if p != nil {
			return 0, p
		}
		if low <= second && second < end {
			return 0x10000 + (first-surrogates)<<10 + (second - low), nil
		}
	}
	return 0, s.wrong("a lone surrogate in an escape")
}

// hex reads an escape of four digits.
func (s *scanner) hex() (rune, *problem) {
	s.at += 2
	var r rune
	for end := s.at + 4; s.at < end; s.at++ {
		var c byte
		if s.at < len(s.text) {
			c = s.text[s.at]
		}
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 + rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 + rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 + rune(c-'A'+10)
		default:
			return 0, s.wrong("an escape without four hexadecimal digits")
		}
	}
	return r, nil
}

// skip reads a value that nobody wants, as strictly as the others.
func (s *scanner) skip() *problem {
	switch c := s.peek(); {
	case c == '{':
		return s.object(func(string) *problem { return s.skip() })
	case c == '[':
		return s.array(func(int) *problem { return s.skip() })
	case c == '"':
		_, p := s.str()
		return p
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || '0' <= c && c <= '9':
		_, p := s.number()
		return p
	}
	return s.expected("a value")
}
