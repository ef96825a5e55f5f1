//go:build linux

package wormhole

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"runtime"
	"time"
)

// DefaultMaxMessageLen is the longest text, in bytes, that an end sends and receives unless it is told
// otherwise: 64 MiB.
const DefaultMaxMessageLen = 64 * 1024 * 1024

// DefaultMaxBlobLen is how many bytes the blobs of one received message may have together, unless its receiver is told
// otherwise: 1 GiB.
const DefaultMaxBlobLen = 1024 * 1024 * 1024

var defaultLimits = limits{DefaultMaxMessageLen, DefaultMaxBlobLen}

// Options are settings of a new channel. The zero value is what [Channel] uses.
type Options struct {
	// MaxMessageLen is the longest message, in bytes of its text; 0 is DefaultMaxMessageLen. It holds for
	// both ends in this process. An end that is sent arrives with the default.
	MaxMessageLen int
	// MaxBlobLen is how many bytes the blobs of one received message may have together; 0 is DefaultMaxBlobLen. A
	// blob may be as long as its sender likes without having cost it any memory, but takes up address space here.
	// A message with more is a [*DecodeError], and nothing of it has been mapped.
	MaxBlobLen int64
	// Buffer is the size of the kernel's buffer in bytes, how much may be sent that is not yet received;
	// 0 is the kernel's default, usually 212,992. The kernel doubles it for its bookkeeping.
	Buffer int
	// Spin is for how long a call that waits may look again and again before it sleeps, which it only does as long as
	// that has been paying off; 0 is DefaultSpin, a negative value turns it off.
	Spin time.Duration
}

// Channel makes a channel: its sender and its receiver.
//
// Both descriptors are close-on-exec. Any number of goroutines, and processes, may use either end: each
// message reaches exactly one receiver.
func Channel[T any]() (*Sender[T], *Receiver[T], error) {
	return ChannelWith[T](Options{})
}

// ChannelWith makes a channel with settings.
func ChannelWith[T any](options Options) (*Sender[T], *Receiver[T], error) {
	limits := defaultLimits
	if options.MaxMessageLen > 0 {
		limits.message = options.MaxMessageLen
	}
	if options.MaxBlobLen > 0 {
		limits.blobs = options.MaxBlobLen
	}
	sending, receiving, err := socketPair(options.Buffer)
	if err != nil {
		return nil, nil, err
	}
	tx, rx := newEnd(sending, limits), newEnd(receiving, limits)
	for _, e := range []*end{tx, rx} {
		switch {
		case options.Spin > 0:
			e.spin.limit.Store(int64(options.Spin))
		case options.Spin < 0:
			e.spin.limit.Store(0)
		}
	}
	return &Sender[T]{tx}, &Receiver[T]{rx}, nil
}

// Sender is the sending end of a channel of values of type T.
type Sender[T any] struct {
	end *end
}

// Send sends a message, and waits while the channel is full.
//
// Success means that the kernel has the whole message: it outlives this process. What the message holds stays open
// here; see [CloseAll].
//
// Errors: [ErrDisconnected], [ErrTimedOut], [ErrClosed], an [*EncodeError], a [*TooLargeError], a [*TooManyFdsError],
// [ErrTooManyFdsInFlight], an [*IOError], and what the context says when it is cancelled.
func (s *Sender[T]) Send(ctx context.Context, message T) error {
	return s.send(ctx, true, &message, nil)
}

// SendWithFds is Send with files beside the message, which [Receiver.RecvWithFds] gives. They stay open here.
func (s *Sender[T]) SendWithFds(ctx context.Context, message T, files ...*os.File) error {
	return s.send(ctx, true, &message, files)
}

// TrySend is Send that says [ErrFull] instead of waiting.
func (s *Sender[T]) TrySend(message T) error {
	return s.send(context.Background(), false, &message, nil)
}

func (s *Sender[T]) send(ctx context.Context, mayWait bool, message *T, files []*os.File) error {
	if s == nil {
		return ErrClosed
	}
	// Addressable, so that methods of the pointer are found.
	return s.end.sendMessage(ctx, mayWait, reflect.ValueOf(message).Elem(), files)
}

// SetMaxMessageLen sets the longest message that this end sends, in bytes of its text.
func (s *Sender[T]) SetMaxMessageLen(bytes int) { s.end.setMaxMessageLen(bytes) }

// Close closes this end in this process. Calls that wait return [ErrClosed]. Closing twice says [ErrClosed].
func (s *Sender[T]) Close() error {
	if s == nil {
		return ErrClosed
	}
	return s.end.close()
}

// File gives a duplicate of the descriptor.
func (s *Sender[T]) File() (*os.File, error) {
	if s == nil {
		return nil, ErrClosed
	}
	return s.end.file("wormhole sender")
}

// SenderFromFile makes a sender of a descriptor that came from elsewhere, which it duplicates. It fails with a
// [*NotAChannelError] if that is not a connected unix SOCK_SEQPACKET socket, or the receiving end of a channel.
func SenderFromFile[T any](file *os.File) (*Sender[T], error) {
	e, err := endFromFile(file, checkSender)
	if err != nil {
		return nil, err
	}
	return &Sender[T]{e}, nil
}

// MarshalJSON fails: an end can only travel in a message of this package.
func (s *Sender[T]) MarshalJSON() ([]byte, error) { return nil, errOutsideMessage }

// UnmarshalJSON fails: an end can only travel in a message of this package.
func (s *Sender[T]) UnmarshalJSON([]byte) error { return errOutsideMessage }

// Receiver is the receiving end of a channel of values of type T.
type Receiver[T any] struct {
	end *end
}

// Recv receives the next message, and waits until there is one.
//
// Errors: [ErrDisconnected] and [ErrClosed], which end a loop, [ErrTimedOut], and what the context says when it is
// cancelled. With a [*DecodeError], a [*TooLargeError], a [*MalformedError], [ErrFdsLost] or an [*UnexpectedFdsError] the
// message is lost, and the next call gives the next one. With an [*IOError] it may be, or nothing was received and the next
// call fails alike: that ends a loop, too.
func (r *Receiver[T]) Recv(ctx context.Context) (T, error) {
	return r.recv(ctx, true, nil)
}

// RecvWithFds is Recv that also gives the files beside the message. They are the caller's to close.
func (r *Receiver[T]) RecvWithFds(ctx context.Context) (T, []*os.File, error) {
	var files []*os.File
	message, err := r.recv(ctx, true, &files)
	return message, files, err
}

// TryRecv is Recv that says [ErrEmpty] instead of waiting.
func (r *Receiver[T]) TryRecv() (T, error) {
	return r.recv(context.Background(), false, nil)
}

func (r *Receiver[T]) recv(ctx context.Context, mayWait bool, files *[]*os.File) (message T, err error) {
	if r == nil {
		return message, ErrClosed
	}
	if err := r.end.recvMessage(ctx, mayWait, reflect.ValueOf(&message).Elem(), files); err != nil {
		var none T // not what was decoded before the error
		return none, err
	}
	return message, nil
}

// SetMaxMessageLen sets the longest message that this end receives, in bytes of its text.
func (r *Receiver[T]) SetMaxMessageLen(bytes int) { r.end.setMaxMessageLen(bytes) }

// SetMaxBlobLen sets how many bytes the blobs of one message that this end receives may have together.
func (r *Receiver[T]) SetMaxBlobLen(bytes int64) { r.end.setMaxBlobLen(bytes) }

// Close closes this end in this process. Calls that wait return [ErrClosed]. Closing twice says [ErrClosed].
func (r *Receiver[T]) Close() error {
	if r == nil {
		return ErrClosed
	}
	return r.end.close()
}

// File gives a duplicate of the descriptor.
func (r *Receiver[T]) File() (*os.File, error) {
	if r == nil {
		return nil, ErrClosed
	}
	return r.end.file("wormhole receiver")
}

// ReceiverFromFile makes a receiver of a descriptor that came from elsewhere, which it duplicates. It fails with
// a [*NotAChannelError] if that is not a connected unix SOCK_SEQPACKET socket, or the sending end of a channel.
func ReceiverFromFile[T any](file *os.File) (*Receiver[T], error) {
	e, err := endFromFile(file, checkReceiver)
	if err != nil {
		return nil, err
	}
	return &Receiver[T]{e}, nil
}

// MarshalJSON fails: an end can only travel in a message of this package.
func (r *Receiver[T]) MarshalJSON() ([]byte, error) { return nil, errOutsideMessage }

// UnmarshalJSON fails: an end can only travel in a message of this package.
func (r *Receiver[T]) UnmarshalJSON([]byte) error { return errOutsideMessage }

var errOutsideMessage = errors.New(
	"wormhole: a channel end, a listener or a blob can only travel in a message of this package")

var (
	_ json.Marshaler   = (*Sender[int])(nil)
	_ json.Unmarshaler = (*Receiver[int])(nil)
)

func (e *end) file(name string) (*os.File, error) {
	fd, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer e.release()
	duplicate, err := duplicateFd(fd)
	if err != nil {
		return nil, &IOError{"duplicate the descriptor of a channel end", err}
	}
	return os.NewFile(uintptr(duplicate), name), nil
}

func endFromFile(file *os.File, check func(fd int) error) (*end, error) {
	fd, err := duplicateFile(file)
	if err != nil {
		return nil, &IOError{"duplicate the descriptor of a channel end", err}
	}
	return adoptEnd(fd, check)
}

// duplicateFile duplicates the descriptor of a file. It does not use file.Fd, which makes the open file that other
// processes may share blocking.
func duplicateFile(file *os.File) (int, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	duplicate := -1
	var failed error
	if err := raw.Control(func(fd uintptr) { duplicate, failed = duplicateFd(int(fd)) }); err != nil {
		return -1, os.ErrClosed // the one reason there is, by another name
	}
	runtime.KeepAlive(file)
	return duplicate, failed
}
