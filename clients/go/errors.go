//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
)

// After any of the errors of this package but ErrDisconnected, ErrClosed and IOError the channel works as before: what
// failed to be sent was not sent at all, what failed to be received is consumed, its descriptors are closed,
// and the next call deals with the next message. After an IOError nothing was sent either; but whether a message was
// consumed is not known, and the next call may fail alike.
var (
	// ErrDisconnected: every copy of the other end, in every process, is gone. For a receiver the queue is
	// empty as well. Nothing can change that: stop using the channel.
	ErrDisconnected = errors.New("wormhole: channel is disconnected: every copy of its other end is gone")

	// ErrEmpty: TryRecv found no message, TryAccept no client.
	ErrEmpty = errors.New("wormhole: cannot receive now: nothing is waiting")

	// ErrFull: TrySend found no room in the kernel's buffer. Nothing was sent.
	ErrFull = errors.New("wormhole: cannot send now: the channel is full")

	// ErrTimedOut: the context's deadline passed first. Nothing was consumed or sent. It is
	// context.DeadlineExceeded too, for errors.Is.
	ErrTimedOut error = &sentinel{"wormhole: timed out waiting for the other side", context.DeadlineExceeded}

	// ErrClosed: this end was closed in this process, before the call or during it. It is os.ErrClosed too,
	// for errors.Is.
	ErrClosed error = &sentinel{"wormhole: this end of the channel was closed here", os.ErrClosed}

	// ErrTooManyFdsInFlight: too many descriptors that this user sent have not been received yet. Nothing was
	// sent; it works again as soon as some of them have been received.
	ErrTooManyFdsInFlight = errors.New(
		"wormhole: cannot send descriptors now: too many that this user sent have not been received yet")

	// ErrFdsLost: the message came, but not all of its descriptors: this process is out of descriptors, or a
	// security module refused them. The message is consumed and those that did come are closed.
	ErrFdsLost = errors.New("wormhole: descriptors of a received message were lost: " +
		"this process is out of descriptors, or a security module refused them")
)

// sentinel is an error which another one of the standard library stands for as well.
type sentinel struct {
	text string
	also error
}

func (e *sentinel) Error() string { return e.text }
func (e *sentinel) Unwrap() error { return e.also }

// Timeout tells that waiting for longer could have helped, as in package net.
func (e *sentinel) Timeout() bool { return e.also == context.DeadlineExceeded }

// EncodeError: the message cannot be written. Nothing was sent.
type EncodeError struct {
	// Type is the message's type.
	Type string
	// Reason says what is wrong, and where in the value.
	Reason string
	// Err is the error of a method of the message's, such as MarshalJSON, or of the system. It may be nil.
	Err error
}

func (e *EncodeError) Error() string {
	return fmt.Sprintf("wormhole: cannot encode a message of type %s: %s", e.Type, e.Reason)
}

// Unwrap gives the cause, if there is one.
func (e *EncodeError) Unwrap() error { return e.Err }

// DecodeError: a message was received and is not a value of the expected type. It is consumed.
type DecodeError struct {
	// Type is the expected type.
	Type string
	// Reason says what is wrong, and where in the value and in the text.
	Reason string
	// Err is the error of a method of the type's, such as UnmarshalJSON, or of the descriptor. It may be nil.
	Err error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("wormhole: cannot decode a message as %s: %s", e.Type, e.Reason)
}

// Unwrap gives the cause, if there is one.
func (e *DecodeError) Unwrap() error { return e.Err }

// TooLargeError: the message's text is longer than the end allows. A message to be sent was not sent; a
// received one is consumed, without having been read.
type TooLargeError struct {
	// Size is the length of the text, Limit the longest allowed, in bytes.
	Size, Limit uint64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("wormhole: message of %d bytes is longer than the limit of %d bytes", e.Size, e.Limit)
}

// TooManyFdsError: the message carries more descriptors than one packet can. Nothing was sent.
type TooManyFdsError struct {
	// Count are the descriptors of the message, one more if its text does not fit one packet. Limit is 253.
	Count, Limit int
}

func (e *TooManyFdsError) Error() string {
	return fmt.Sprintf("wormhole: cannot send %d descriptors in one message: the limit is %d", e.Count, e.Limit)
}

// UnexpectedFdsError: the message carries descriptors which nothing claims: neither its fields nor
// RecvWithFds. It is consumed and the descriptors are closed.
type UnexpectedFdsError struct {
	// Count is how many descriptors nothing claimed.
	Count int
}

func (e *UnexpectedFdsError) Error() string {
	return fmt.Sprintf("wormhole: received a message with %d descriptors that nothing claims", e.Count)
}

// MalformedError: what came is no wormhole packet, so a foreign or broken program is at the other end. It is
// consumed.
type MalformedError struct {
	// Reason says what is wrong with it.
	Reason string
}

func (e *MalformedError) Error() string {
	return "wormhole: received a malformed packet: " + e.Reason
}

// NotAChannelError: a descriptor that was to become an end is not a connected unix SOCK_SEQPACKET socket.
type NotAChannelError struct {
	// Reason says what it is instead.
	Reason string
}

func (e *NotAChannelError) Error() string {
	return "wormhole: descriptor is not an end of a channel: " + e.Reason
}

// NotABlobError: a descriptor that was to become a Blob is not a sealed memfd.
type NotABlobError struct {
	// Reason says what it is instead.
	Reason string
}

func (e *NotABlobError) Error() string {
	return "wormhole: descriptor is not a blob: " + e.Reason
}

// NotInheritedError: this program was not handed anything, or it has been taken. Nothing was changed.
type NotInheritedError struct {
	// Reason says what is wrong, for instance with the environment variable that names the descriptor.
	Reason string
}

func (e *NotInheritedError) Error() string {
	return "wormhole: nothing to inherit: " + e.Reason
}

// AddressError: listening at a name, or connecting to it, failed. Err is a syscall.Errno: EADDRINUSE if
// a process listens there already, EEXIST if a file is there which is not a socket, ENOENT if nobody has
// listened there yet, ECONNREFUSED if nobody does any more, EINVAL if there can be no socket of that name.
type AddressError struct {
	// Operation is what was attempted.
	Operation string
	// Address is the path; or the abstract name, after an @.
	Address string
	// Err is why it failed.
	Err error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("wormhole: cannot %s %s: %s", e.Operation, excerpt(e.Address), excerptOf(e.Err))
}

// Unwrap gives the reason.
func (e *AddressError) Unwrap() error { return e.Err }

// IOError: the kernel refused an operation for a reason that has nothing to do with the channel's state, such
// as a lack of memory or of descriptors, or a sandbox that denies a system call.
type IOError struct {
	// Operation is what was attempted.
	Operation string
	// Err is why it failed, usually a syscall.Errno.
	Err error
}

func (e *IOError) Error() string {
	return fmt.Sprintf("wormhole: cannot %s: %s", e.Operation, excerptOf(e.Err))
}

// Unwrap gives the reason.
func (e *IOError) Unwrap() error { return e.Err }

// deceptive are characters that change how the text around them looks: those that cannot be seen, and those that turn
// the direction of writing.
var deceptive = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x00ad, 0x00ad, 1}, {0x034f, 0x034f, 1}, {0x061c, 0x061c, 1}, {0x115f, 0x1160, 1}, {0x17b4, 0x17b5, 1},
		{0x180b, 0x180f, 1}, {0x200b, 0x200f, 1}, {0x2028, 0x202e, 1}, {0x2060, 0x206f, 1}, {0x3164, 0x3164, 1},
		{0xfe00, 0xfe0f, 1}, {0xfeff, 0xfeff, 1}, {0xffa0, 0xffa0, 1}, {0xfff0, 0xfffb, 1},
	},
	R32: []unicode.Range32{{0x1bca0, 0x1bca3, 1}, {0x1d173, 0x1d17a, 1}, {0xe0000, 0xe0fff, 1}},
}

// excerpt makes a text that may quote what the other side has sent fit for people: without control
// characters and those that deceive, and no longer than they read.
func excerpt(reason string) string {
	var text strings.Builder
	for _, r := range reason {
		if text.Len() > 1000 {
			text.WriteString(" [...]")
			break
		}
		switch {
		case !unicode.Is(deceptive, r) && !unicode.IsControl(r):
			text.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&text, "\\U%08x", r)
		default:
			fmt.Fprintf(&text, "\\u%04x", r)
		}
	}
	return text.String()
}

// excerptOf is for errors that may quote a path.
func excerptOf(err error) string {
	return excerpt(fmt.Sprint(err))
}
