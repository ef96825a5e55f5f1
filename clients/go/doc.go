// Package wormhole is typed channels between Linux processes, for Go programs: make a channel, hand one
// end to another process, send values. It speaks the protocol of the Rust crate wormhole-rs, which the
// file PROTOCOL.md of the same repository specifies, with the standard library alone.
//
//	tx, rx, err := wormhole.Channel[Job]()
//	err = tx.Send(ctx, Job{Name: "count", Input: file, Reply: reply})
//	job, err := rx.Recv(ctx)
//
// Blocking calls take a context. Its deadline is theirs, and cancelling it wakes them. Close wakes them as
// well, at once: they return [ErrClosed]. A call that was cancelled, or timed out, has lost nothing: a message is sent or
// received by one system call. All methods may be called by any number of goroutines at once.
//
// A call that waits spins for at most 50 microseconds, as long as that has been paying off, and then sleeps, without
// a thread: all that sleep are woken through one epoll. No flag is ever set on a socket that other processes share.
//
// # Ends
//
// A channel is over for its receivers when every copy of the sender, in every process, is closed, and the other
// way round: then calls return [ErrDisconnected]. So close what you do not use any more. Sending an end in a
// message does not close it here: close it after the send, or the channel stays open as long as this process.
// [CloseAll] closes whatever a message holds. An end that nothing refers to any more is closed when the garbage
// collector finds out, which is a safety net and no more: it may never find out. A function that holds an end only to
// keep a channel open must refer to it until then, best by a deferred Close.
//
// # Messages
//
// A message is a JSON value of the Go type. The struct tags are those of encoding/json, but the encoding
// is this package's own, for two reasons. A descriptor stands in the text as its number in one message, and
// encoding/json gives MarshalJSON no way to know which message that is: here the list of descriptors belongs
// to the encoder of the one message, so any number of goroutines can send and receive, and nothing is shared. And a
// peer written in Rust is stricter than encoding/json, so this package is as strict, in both directions:
//
//   - Keys must match exactly; encoding/json would also take `Name` for `name`. A member that is there twice
//     is refused, one that is missing as well, unless the field is a pointer or an interface, or has the option
//     omitempty. Unknown members are ignored.
//   - null is for pointers and interfaces, and for types whose own UnmarshalJSON takes it: those of slices and maps, as
//     json.RawMessage is, and others that write it themselves, as nullable numbers and strings do. A nil slice is written
//     [] and a nil map {}. A pointer to what is written null, as a nil pointer or a json.RawMessage may be, would arrive as
//     nil itself and cannot be sent, and neither can a map with two keys that are written alike.
//   - A []byte is a list of numbers, as Rust's Vec<u8> is, not base64. An array has exactly as many elements
//     as its type says.
//   - An integer field takes digits alone: 1.0, 1e0 and -0 are refused, and what does not fit. Floats always have
//     a point or an exponent. NaN and the infinities cannot be sent.
//   - A field of type any gets numbers as [encoding/json.Number], so that no digit is lost. A *big.Int takes
//     integers of up to 4300 digits, as Python does, because reading takes the square of their number. So does any
//     type with methods for numbers of its own; and a *big.Float or *big.Rat, which is a string.
//   - A string that is not UTF-8 cannot be sent; encoding/json would quietly change it. A lone surrogate in an
//     escape, which it would change as well, is refused.
//   - More than 127 levels are refused in both directions. That is also how a value that contains itself ends.
//
// Types with MarshalJSON, UnmarshalJSON, MarshalText or UnmarshalText are written and read by these methods;
// descriptors cannot travel in them. A Rust tuple is a struct that embeds [Tuple], a Rust enum one
// that embeds [Enum].
//
// # Descriptors in messages
//
// A field, an element, or whatever else in a message may be a *Sender[T], a *Receiver[T], a *Listener[T], an *os.File or a
// *[Blob]. It travels as a duplicate: the sender keeps its own open. What is received is close-on-exec and
// belongs to the message; on every error all of it is closed. These pointers must not be nil, unless the field has
// the option omitempty. For the rest of the standard library, such as a *net.TCPConn, there is its File method, and
// net.FileConn for the way back.
//
// A file that is sent becomes blocking, as those in exec.Cmd.ExtraFiles do, whether the send succeeds or not. The
// runtime of Go makes pipes and connections non-blocking, a duplicate shares that flag with its original, and a program in
// another language that reads it would fail with EAGAIN. So close a file after the send: if it is still read here, deadlines
// have no effect on it, and Close does not end a Read.
//
// A received file may come from a stranger, who may serve the file system that it is in. To receive it asks the file for
// nothing: only what is a socket or a pipe is watched by the runtime's poller, and so has deadlines; another file that is
// non-blocking says EAGAIN. All that a program does with such a file later may wait for the stranger, Stat and Close
// too. The garbage collector's Close of a file that was forgotten holds up all finalizers then.
//
// A message takes up more memory than its text, up to seventy times as much where its type is any: so set
// [Receiver.SetMaxMessageLen] for strangers to what messages need, and give them types.
//
// Up to 253 descriptors go with a message, those given to SendWithFds included.
package wormhole
