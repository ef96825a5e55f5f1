//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMessagesArriveInOrderAndThenTheEnd(t *testing.T) {
	noLeak(t)
	tx, rx := pair[record](t, Options{})
	ctx := within(t)
	go func() {
		for i := uint32(0); i < 10_000; i++ {
			if err := tx.Send(ctx, record{A: i, B: "text"}); err != nil {
				t.Error(err)
			}
		}
		tx.Close()
	}()
	for i := uint32(0); i < 10_000; i++ {
		if got := must[record](t)(rx.Recv(ctx)); got.A != i || got.B != "text" || got.C == nil {
			t.Fatalf("message %d: %v", i, got)
		}
	}
	_, err := rx.Recv(ctx)
	expect(t, err, ErrDisconnected)
	check(t, rx.Close())
}

func TestEachMessageReachesOneReceiver(t *testing.T) {
	tx, rx := pair[int](t, Options{Buffer: 4096})
	ctx := within(t)
	const senders, receivers, each = 4, 4, 1000
	var counts [senders * each]int
	var lock sync.Mutex
	var sending, receiving sync.WaitGroup
	for s := 0; s < senders; s++ {
		sending.Add(1)
		go func(s int) {
			defer sending.Done()
			for i := 0; i < each; i++ {
				if err := tx.Send(ctx, s*each+i); err != nil {
					t.Error(err)
				}
			}
		}(s)
	}
	for r := 0; r < receivers; r++ {
		receiving.Add(1)
		go func() {
			defer receiving.Done()
			for {
				got, err := rx.Recv(ctx)
				if err != nil {
					if err != ErrDisconnected {
						t.Error(err)
					}
					return
				}
				lock.Lock()
				counts[got]++
				lock.Unlock()
			}
		}()
	}
	sending.Wait()
	tx.Close()
	receiving.Wait()
	for i, count := range counts {
		if count != 1 {
			t.Fatalf("message %d came %d times", i, count)
		}
	}
}

func TestTryFormsDoNotWait(t *testing.T) {
	tx, rx := pair[int](t, Options{Buffer: 4096})
	_, err := rx.TryRecv()
	expect(t, err, ErrEmpty)
	sent := 0
	for ; err != ErrFull && sent < 1000; sent++ {
		if err = tx.TrySend(sent); err != nil {
			expect(t, err, ErrFull)
			break
		}
	}
	for i := 0; i < sent; i++ {
		if got := must[int](t)(rx.TryRecv()); got != i {
			t.Fatalf("found %d, expected %d", got, i)
		}
	}
	check(t, rx.Close())
	expect(t, tx.TrySend(1), ErrDisconnected)
	expect(t, tx.Send(within(t), 1), ErrDisconnected)
}

func TestADeadlineEndsWaiting(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{Buffer: 4096})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := rx.Recv(ctx)
	expect(t, err, ErrTimedOut)
	expect(t, err, context.DeadlineExceeded)
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error("no timeout")
	}
	for tx.TrySend(1) == nil {
	}
	expect(t, tx.Send(ctx, 1), ErrTimedOut)
	tx.Close()
	rx.Close()
}

// asleep waits until a call of e waits.
func asleep(e *end) { queued(e, 1) }

func TestCancellingWakesReceiversAndSenders(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{Buffer: 4096})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := rx.Recv(ctx)
		failed <- err
	}()
	asleep(rx.end)
	cancel()
	expect(t, <-failed, context.Canceled)

	for tx.TrySend(1) == nil {
	}
	ctx, cancel = context.WithCancel(context.Background())
	go func() { failed <- tx.Send(ctx, 1) }()
	asleep(tx.end)
	cancel()
	expect(t, <-failed, context.Canceled)

	// Such a loop ends although there always is a message.
	_, err := rx.Recv(ctx)
	expect(t, err, context.Canceled)
	must[int](t)(rx.TryRecv())
	tx.Close()
	rx.Close()
}

func TestClosingWakesReceiversAndSenders(t *testing.T) {
	noLeak(t)
	for round := 0; round < 200; round++ {
		tx, rx := pair[int](t, Options{Buffer: 4096})
		other := must[*os.File](t)(tx.File()) // not the end of the channel
		failed := make(chan error)
		go func() {
			_, err := rx.Recv(within(t))
			failed <- err
		}()
		if round%2 == 0 {
			asleep(rx.end)
		}
		check(t, rx.Close())
		expect(t, <-failed, ErrClosed)
		other.Close()
		tx.Close()
		expect(t, rx.Close(), ErrClosed)
		expect(t, tx.Send(within(t), 1), os.ErrClosed)
	}
	tx, rx := pair[int](t, Options{Buffer: 4096})
	for tx.TrySend(1) == nil {
	}
	failed := make(chan error)
	go func() { failed <- tx.Send(within(t), 1) }()
	asleep(tx.end)
	check(t, tx.Close())
	expect(t, <-failed, ErrClosed)
	rx.Close()
}

func TestAWaitingSenderGoesOnAsSoonAsThereIsRoom(t *testing.T) {
	tx, rx := pair[int](t, Options{Buffer: 20_000})
	for tx.TrySend(0) == nil {
	}
	sent := make(chan error)
	go func() { sent <- tx.Send(within(t), 1) }()
	asleep(tx.end)
	// Not nearly three quarters of the buffer.
	for i := 0; i < 3; i++ {
		must[int](t)(rx.TryRecv())
	}
	check(t, <-sent)
}

func TestTheOtherEndWakesAWaitingOne(t *testing.T) {
	tx, rx := pair[int](t, Options{Buffer: 4096})
	failed := make(chan error)
	go func() {
		_, err := rx.Recv(within(t))
		failed <- err
	}()
	asleep(rx.end)
	tx.Close()
	expect(t, <-failed, ErrDisconnected)

	tx, rx = pair[int](t, Options{Buffer: 4096})
	for tx.TrySend(0) == nil {
	}
	go func() { failed <- tx.Send(within(t), 1) }()
	asleep(tx.end)
	rx.Close()
	expect(t, <-failed, ErrDisconnected)
}

func TestLongMessagesArrive(t *testing.T) {
	noLeak(t)
	tx, rx := pair[string](t, Options{Buffer: 4096})
	for _, length := range []int{0, 8000, 8192 - 32 - 10, 8192 - 32 - 9, 300_000, 10_000_000} {
		text := strings.Repeat("é", length/2)
		done := make(chan error)
		go func() { done <- tx.Send(within(t), text) }()
		if got := must[string](t)(rx.Recv(within(t))); got != text {
			t.Fatalf("%d bytes are not %d", len(got), len(text))
		}
		check(t, <-done)
	}
	tx.Close()
	rx.Close()
}

func TestALastMessageJustBeforeTheEndArrives(t *testing.T) {
	ready := make(chan *Sender[int])
	go func() {
		for tx := range ready {
			_ = tx.TrySend(1)
			tx.Close()
		}
	}()
	defer close(ready)
	for i := 0; i < 5_000; i++ {
		tx, rx, err := Channel[int]()
		check(t, err)
		ready <- tx
		_, err = rx.TryRecv()
		for err == ErrEmpty {
			_, err = rx.TryRecv()
		}
		check(t, err)
		check(t, rx.Close())
	}
}

func TestTheRestOfALongMessageIsInMemory(t *testing.T) {
	noLeak(t)
	file := must[*os.File](t)(os.CreateTemp(".", "test"))
	check(t, os.Remove(file.Name()))
	must[int](t)(file.WriteString("true"))
	tx, rx := pair[bool](t, Options{})
	rawSend(t, tx.end, []byte{4, 0, 0, 0, 0, 0, 0, 0}, []*os.File{file})
	_, err := rx.Recv(within(t))
	var malformed *MalformedError
	// The check cannot tell a file of a tmpfs from a memfd.
	if _, onDisk := fcntl(int(file.Fd()), fGetSeals, 0); onDisk != nil && !errors.As(err, &malformed) {
		t.Errorf("found %v", err)
	}
	file.Close()
	tx.Close()
	rx.Close()
}

func TestLimits(t *testing.T) {
	noLeak(t)
	tx, rx := pair[string](t, Options{MaxMessageLen: 16})
	var tooLarge *TooLargeError
	err := tx.Send(within(t), "a text that is longer")
	if !errors.As(err, &tooLarge) || tooLarge.Size != 23 || tooLarge.Limit != 16 {
		t.Errorf("found %v", err)
	}
	if err.Error() != "wormhole: message of 23 bytes is longer than the limit of 16 bytes" {
		t.Errorf("found %v", err)
	}
	tx.SetMaxMessageLen(100)
	check(t, tx.Send(within(t), "a text that is longer"))
	_, err = rx.Recv(within(t))
	if !errors.As(err, &tooLarge) {
		t.Errorf("found %v", err)
	}
	file := memfd(t, "", 0)
	defer file.Close()
	many := make([]*os.File, 254)
	for i := range many {
		many[i] = file
	}
	var tooMany *TooManyFdsError
	if err := tx.SendWithFds(within(t), "", many...); !errors.As(err, &tooMany) || tooMany.Count != 254 {
		t.Errorf("found %v", err)
	}
	check(t, tx.SendWithFds(within(t), "", many[:253]...))
	_, files, err := rx.RecvWithFds(within(t))
	check(t, err)
	if len(files) != 253 {
		t.Errorf("%d files", len(files))
	}
	closeFiles(files)
	// With a memfd one too many.
	tx.SetMaxMessageLen(DefaultMaxMessageLen)
	err = tx.SendWithFds(within(t), strings.Repeat("x", 1_000_000), many[:253]...)
	if !errors.As(err, &tooMany) || tooMany.Count != 254 {
		t.Errorf("found %v", err)
	}
	tx.Close()
	rx.Close()
}

func TestDescriptorsBesideTheMessage(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{})
	file := memfd(t, "beside", 0)
	check(t, tx.SendWithFds(within(t), 1, file, file))
	check(t, tx.SendWithFds(within(t), 2, file))
	check(t, file.Close())
	if err := tx.SendWithFds(within(t), 3, file); !errors.Is(err, os.ErrClosed) {
		t.Errorf("found %v", err)
	}
	if err := tx.SendWithFds(within(t), 3, nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("found %v", err)
	}
	_, files, err := rx.RecvWithFds(within(t))
	check(t, err)
	for _, file := range files {
		flags := must[int](t)(fcntl(int(file.Fd()), syscall.F_GETFD, 0))
		if flags&syscall.FD_CLOEXEC == 0 || content(t, file) != "beside" {
			t.Error("not close-on-exec, or something else")
		}
	}
	closeFiles(files)
	_, err = rx.Recv(within(t))
	var unexpected *UnexpectedFdsError
	if !errors.As(err, &unexpected) || unexpected.Count != 1 {
		t.Errorf("found %v", err)
	}
	tx.Close()
	rx.Close()
}

func TestLostDescriptorsAreAnError(t *testing.T) {
	noLeak(t)
	tx, rx := pair[[]*os.File](t, Options{})
	file := memfd(t, "", 0)
	check(t, tx.Send(within(t), []*os.File{file, file, file}))
	check(t, tx.Send(within(t), nil))
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	// The next free number is the limit.
	next := must[int](t)(duplicateFd(0))
	check(t, syscall.Close(next))
	low := limit
	low.Cur = uint64(next + 1)
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	_, err := rx.TryRecv()
	files, second := rx.TryRecv()
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	expect(t, err, ErrFdsLost)
	check(t, second)
	if len(files) != 0 {
		t.Error("files")
	}
	file.Close()
	tx.Close()
	rx.Close()
}

func TestASenderThatIsShutBackwardsAndEmptyPackets(t *testing.T) {
	tx, rx := pair[int](t, Options{})
	rawSend(t, tx.end, nil, nil)
	check(t, tx.Send(within(t), 5))
	_, err := rx.Recv(within(t))
	var malformed *MalformedError
	if !errors.As(err, &malformed) {
		t.Errorf("found %v", err)
	}
	if got := must[int](t)(rx.Recv(within(t))); got != 5 {
		t.Errorf("found %d", got)
	}
	// The receiver cannot write.
	fd, err := rx.end.acquire()
	check(t, err)
	defer rx.end.release()
	expect(t, sendPacket(fd, []byte("x"), nil), syscall.EPIPE)
}

func TestEndsFromFiles(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{})
	file := must[*os.File](t)(tx.File())
	again := must[*Sender[int]](t)(SenderFromFile[int](file))
	check(t, file.Close())
	check(t, tx.Close())
	check(t, again.Send(within(t), 3))
	check(t, again.Close())
	if got := must[int](t)(rx.Recv(within(t))); got != 3 {
		t.Errorf("found %d", got)
	}
	_, err := rx.Recv(within(t))
	expect(t, err, ErrDisconnected)
	var not *NotAChannelError
	null := must[*os.File](t)(os.Open("/dev/null"))
	defer null.Close()
	stream := socketOf(t, syscall.AF_UNIX, syscall.SOCK_STREAM)
	unconnected := socketOf(t, syscall.AF_UNIX, syscall.SOCK_SEQPACKET)
	defer closeFiles([]*os.File{stream, unconnected})
	for _, file := range []*os.File{null, stream, unconnected} {
		if _, err := ReceiverFromFile[int](file); !errors.As(err, &not) {
			t.Errorf("found %v", err)
		}
	}
	rx.Close()
}

func TestZeroEndsAreClosed(t *testing.T) {
	for _, tx := range []*Sender[int]{nil, {}} {
		expect(t, tx.Send(context.Background(), 1), ErrClosed)
		expect(t, tx.TrySend(1), ErrClosed)
		expect(t, tx.Close(), ErrClosed)
		_, err := tx.File()
		expect(t, err, ErrClosed)
	}
	for _, rx := range []*Receiver[int]{nil, {}} {
		_, err := rx.Recv(context.Background())
		expect(t, err, ErrClosed)
		_, err = rx.TryRecv()
		expect(t, err, ErrClosed)
		expect(t, rx.Close(), ErrClosed)
	}
	for _, b := range []*Blob{nil, {}} {
		expect(t, b.View(func([]byte) error { return nil }), ErrClosed)
		if b.Len() != 0 {
			t.Error("not empty")
		}
		_ = b.Close()
	}
}

func TestBuffersThatAreTooLarge(t *testing.T) {
	noLeak(t)
	for _, buffer := range []int{1 << 30, 1 << 40} {
		_, _, err := ChannelWith[int](Options{Buffer: buffer})
		var io *IOError
		if !errors.As(err, &io) {
			t.Errorf("found %v", err)
		}
	}
}

func TestTheGarbageCollectorClosesWhatNobodyCanReach(t *testing.T) {
	_, rx := func() (*Sender[int], *Receiver[int]) {
		tx, rx, err := Channel[int]()
		check(t, err)
		check(t, tx.Send(within(t), 1))
		return nil, rx
	}()
	must[int](t)(rx.Recv(within(t)))
	failed := make(chan error)
	go func() {
		_, err := rx.Recv(within(t))
		failed <- err
	}()
	for {
		runtime.GC()
		select {
		case err := <-failed:
			expect(t, err, ErrDisconnected)
			return
		default:
			runtime.Gosched()
		}
	}
}

func TestTheDescriptorStaysOpenWhileACallUsesIt(t *testing.T) {
	tx, _ := pair[int](t, Options{})
	fd := must[int](t)(tx.end.acquire())
	check(t, tx.Close())
	must[int](t)(fcntl(fd, syscall.F_GETFD, 0))
	tx.end.release()
	_, err := fcntl(fd, syscall.F_GETFD, 0)
	expect(t, err, syscall.EBADF)
}

// The descriptor of a closed end must not be used by a call that is late, as it may be another file's by then.
func TestClosingWhileOthersUseAnEnd(t *testing.T) {
	noLeak(t)
	for round := 0; round < 300; round++ {
		tx, rx := pair[string](t, Options{Buffer: 4096})
		var group sync.WaitGroup
		for i := 0; i < 4; i++ {
			group.Add(2)
			go func() {
				defer group.Done()
				err := tx.Send(context.Background(), "message")
				for err == nil {
					err = tx.Send(context.Background(), "message")
				}
				if err != ErrClosed && err != ErrDisconnected {
					t.Error(err)
				}
			}()
			go func() {
				defer group.Done()
				for {
					got, err := rx.Recv(context.Background())
					if err != nil {
						if err != ErrClosed && err != ErrDisconnected {
							t.Error(err)
						}
						return
					}
					if got != "message" {
						t.Errorf("found %q", got)
					}
				}
			}()
		}
		file := memfd(t, "", 0)
		if round%2 == 0 {
			tx.Close()
			rx.Close()
		} else {
			rx.Close()
			tx.Close()
		}
		others := []*os.File{memfd(t, "", 0), memfd(t, "", 0)}
		group.Wait()
		for _, file := range append(others, file) {
			if content(t, file) != "" {
				t.Error("written to a file of somebody else")
			}
			file.Close()
		}
	}
}

func TestErrorsAreExcerpts(t *testing.T) {
	tx, rx := pair[string](t, Options{})
	other := &Receiver[map[string]int]{rx.end}
	check(t, tx.Send(within(t), "x"))
	_, err := other.Recv(within(t))
	var decode *DecodeError
	if !errors.As(err, &decode) || decode.Type != "map[string]int" {
		t.Errorf("found %v", err)
	}
	expected := `wormhole: cannot decode a message as map[string]int: found '"', expected an object at byte 0 of the text`
	if err.Error() != expected {
		t.Errorf("found %v", err)
	}
	rawSend(t, tx.end, packetOf(fmt.Sprintf(`{"\n\u001b%s":"x"}`, strings.Repeat("x", 5000))), nil)
	_, err = other.Recv(within(t))
	if !errors.As(err, &decode) || len(err.Error()) > 1200 || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("found %q", err)
	}
}

func packetOf(text string) []byte {
	return append([]byte{byte(len(text)), byte(len(text) >> 8), byte(len(text) >> 16), 0, 0, 0, 0, 0}, text...)
}
