//go:build linux

package wormhole

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func isNonblocking(t *testing.T, file *os.File) bool {
	t.Helper()
	duplicate := must[int](t)(duplicateFile(file))
	defer closeFd(duplicate)
	return must[int](t)(fcntl(duplicate, syscall.F_GETFL, 0))&syscall.O_NONBLOCK != 0
}

// accepted gives a connection that a listener of package net has accepted, as a file, and its other side.
func accepted(t *testing.T) (*os.File, net.Conn) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	client := must[net.Conn](t)(net.Dial("tcp", listener.Addr().String()))
	server := must[net.Conn](t)(listener.Accept())
	defer server.Close()
	return must[*os.File](t)(server.(*net.TCPConn).File()), client
}

func TestFilesThatTheRuntimeMadeNonblockingArriveBlocking(t *testing.T) {
	noLeak(t)
	tx, rx := pair[[]*os.File](t, Options{})
	reader, writer, err := os.Pipe()
	check(t, err)
	connection, client := accepted(t)
	for _, file := range []*os.File{reader, connection} {
		if !isNonblocking(t, file) {
			t.Fatal("the runtime has not made it non-blocking")
		}
	}
	check(t, tx.SendWithFds(within(t), []*os.File{reader}, connection))
	got, beside, err := rx.RecvWithFds(within(t))
	check(t, err)
	for _, file := range append(got, beside...) {
		if isNonblocking(t, file) {
			t.Error("non-blocking")
		}
	}
	closeFiles([]*os.File{reader, connection})
	written := make(chan bool)
	go func() {
		defer close(written)
		fmt.Fprint(writer, "by pipe")
		fmt.Fprint(client, "by net!")
		writer.Close()
		client.Close()
	}()
	for i, file := range append(got, beside...) {
		text := make([]byte, 7)
		must[int](t)(file.Read(text))
		if expected := []string{"by pipe", "by net!"}[i]; string(text) != expected {
			t.Errorf("found %q, expected %q", text, expected)
		}
	}
	<-written
	// A connection again.
	again := must[net.Conn](t)(net.FileConn(beside[0]))
	check(t, again.SetDeadline(time.Now().Add(time.Minute)))
	again.Close()
	closeFiles(got)
	closeFiles(beside)
	tx.Close()
	rx.Close()
}

func TestOnlyPipesAndSocketsOfStrangersAreWatched(t *testing.T) {
	noLeak(t)
	tx, rx := pair[*os.File](t, Options{})
	reader, writer, err := os.Pipe() // non-blocking
	check(t, err)
	// What stands for a file whose readiness somebody else decides.
	event := must[int](t)(eventFd())
	check(t, syscall.SetNonblock(event, true))
	e := os.NewFile(uintptr(must[int](t)(duplicateFd(event))), "event")
	fd := must[int](t)(tx.end.acquire())
	raw := must[int](t)(duplicateFile(reader))
	packet := []byte("\x01\x00\x00\x00\x00\x00\x00\x000")
	check(t, sendPacket(fd, packet, []int{raw}))
	check(t, sendPacket(fd, packet, []int{event}))
	tx.end.release()
	closeFds([]int{raw, event})
	for i, expected := range []error{nil, os.ErrNoDeadline} {
		file := must[*os.File](t)(rx.Recv(within(t)))
		if err := file.SetReadDeadline(time.Now()); !errors.Is(err, expected) {
			t.Errorf("%d: found %v, expected %v", i, err, expected)
		}
		if i == 1 {
			if _, err := file.Read(make([]byte, 8)); !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("found %v", err)
			}
			duplicate := must[int](t)(duplicateFile(file))
			flags := must[int](t)(fcntl(duplicate, syscall.F_GETFD, 0))
			if flags&syscall.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			closeFd(duplicate)
		}
		file.Close()
	}
	closeFiles([]*os.File{reader, writer, e})
	tx.Close()
	rx.Close()
}

func TestTheBlobsOfAMessageHaveALimit(t *testing.T) {
	noLeak(t)
	tx, rx := pair[[]*Blob](t, Options{MaxBlobLen: 1000})
	blob := must[*Blob](t)(NewBlob(make([]byte, 400)))
	sparse := memfd(t, "", mfdSealing)
	check(t, sparse.Truncate(1<<46))
	must[int](t)(fcntl(int(sparse.Fd()), fAddSeals, sealWrite|sealShrink|sealGrow))
	send := func(blobs ...*Blob) { t.Helper(); check(t, tx.Send(within(t), blobs)) }
	refused := func(expected string) {
		t.Helper()
		_, err := rx.Recv(within(t))
		var decode *DecodeError
		if !errors.As(err, &decode) || !strings.Contains(err.Error(), expected) {
			t.Errorf("found %v, expected %s", err, expected)
		}
	}
	send(blob, blob)
	send(blob, blob, blob)
	got := must[[]*Blob](t)(rx.Recv(within(t)))
	CloseAll(got)
	refused("[2]: blobs of 1200 bytes are longer than the limit of 1000 bytes")
	rx.SetMaxBlobLen(1200)
	send(blob, blob, blob)
	CloseAll(must[[]*Blob](t)(rx.Recv(within(t))))
	// 64 TiB that took no memory.
	rx.SetMaxBlobLen(DefaultMaxBlobLen)
	raw := []*os.File{sparse}
	tx2, rx2 := pair[[]*Blob](t, Options{})
	rawSend(t, tx2.end, []byte("\x03\x00\x00\x00\x00\x00\x00\x00[0]"), raw)
	_, err := rx2.Recv(within(t))
	if err == nil || !strings.Contains(err.Error(),
		"blobs of 70368744177664 bytes are longer than the limit of 1073741824 bytes") {
		t.Errorf("found %v", err)
	}
	rx2.SetMaxBlobLen(-1)
	rawSend(t, tx2.end, []byte("\x03\x00\x00\x00\x00\x00\x00\x00[0]"), raw)
	_, err = rx2.Recv(within(t))
	if err == nil || !strings.Contains(err.Error(), "the limit of 0 bytes") {
		t.Errorf("found %v", err)
	}
	blob.Close()
	closeFiles(raw)
	for _, e := range []*end{tx.end, rx.end, tx2.end, rx2.end} {
		check(t, e.close())
	}
}

func TestAnEndOfTheOtherDirectionIsRefused(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{})
	sending := must[*os.File](t)(tx.File())
	receiving := must[*os.File](t)(rx.File())
	refused := func(err error, expected string) {
		t.Helper()
		var not *NotAChannelError
		if !errors.As(err, &not) || not.Reason != expected {
			t.Errorf("found %v, expected %s", err, expected)
		}
	}
	const isSending = "it is the sending end of a channel, not the receiving one"
	const isReceiving = "it is the receiving end of a channel, not the sending one"
	_, err := ReceiverFromFile[int](sending)
	refused(err, isSending)
	_, err = SenderFromFile[int](receiving)
	refused(err, isReceiving)
	check(t, must[*Sender[int]](t)(SenderFromFile[int](sending)).Close())
	check(t, must[*Receiver[int]](t)(ReceiverFromFile[int](receiving)).Close())
	// In a message, too; nothing has been sent by asking.
	type swapped struct {
		Tx *Sender[int]   `json:"tx"`
		Rx *Receiver[int] `json:"rx"`
	}
	to, from := pair[swapped](t, Options{})
	rawSend(t, to.end, []byte("\x0f\x00\x00\x00\x00\x00\x00\x00{\"tx\":0,\"rx\":1}"), []*os.File{receiving, sending})
	_, err = from.Recv(within(t))
	refused(err, isReceiving)
	_, err = rx.TryRecv()
	expect(t, err, ErrEmpty)
	// A foreign pair that is not one-way may be either.
	both := must[[2]int](t)(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0))
	a, b := os.NewFile(uintptr(both[0]), "a"), os.NewFile(uintptr(both[1]), "b")
	for _, file := range []*os.File{a, b} {
		check(t, must[*Sender[int]](t)(SenderFromFile[int](file)).Close())
		check(t, must[*Receiver[int]](t)(ReceiverFromFile[int](file)).Close())
	}
	// Once the peer is gone nobody can tell.
	check(t, rx.Close())
	receiving.Close()
	check(t, must[*Receiver[int]](t)(ReceiverFromFile[int](sending)).Close())
	closeFiles([]*os.File{sending, a, b})
	for _, e := range []*end{tx.end, to.end, from.end} {
		check(t, e.close())
	}
}

func TestAListenerInAMessage(t *testing.T) {
	noLeak(t)
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := Listen[int](path)
	check(t, err)
	type message struct {
		Listener *Listener[int] `json:"listener"`
	}
	tx, rx := pair[message](t, Options{})
	check(t, tx.Send(within(t), message{listener}))
	got := must[message](t)(rx.Recv(within(t)))
	client := must[*Sender[int]](t)(Connect[int](within(t), path))
	check(t, client.Send(within(t), 5))
	source, _, err := got.Listener.Accept(within(t))
	check(t, err)
	if number := must[int](t)(source.Recv(within(t))); number != 5 {
		t.Errorf("found %d", number)
	}
	// Its sender makes it block afterwards.
	fd := must[int](t)(listener.end.acquire())
	check(t, syscall.SetNonblock(fd, false))
	listener.end.release()
	_, _, err = got.Listener.TryAccept()
	expect(t, err, ErrEmpty)
	failed := make(chan error)
	go func() {
		_, _, err := got.Listener.Accept(within(t))
		failed <- err
	}()
	asleep(got.Listener.end)
	check(t, got.Listener.Close())
	expect(t, <-failed, ErrClosed)
	// Whoever got it leaves the file, and so does CloseAll after the send.
	_, err = os.Lstat(path)
	check(t, err)
	file := must[*os.File](t)(listener.File())
	CloseAll(message{listener})
	_, err = os.Lstat(path)
	check(t, err)
	again := must[*Listener[int]](t)(ListenerFromFile[int](file))
	check(t, again.Close())
	file.Close()
	var not *NotAChannelError
	socket := must[*os.File](t)(tx.File())
	if _, err := ListenerFromFile[int](socket); !errors.As(err, &not) || not.Reason != "a unix socket that does not listen" {
		t.Errorf("found %v", err)
	}
	socket.Close()
	// One whose giving away has failed takes its file with it.
	listener = must[*Listener[int]](t)(Listen[int](path))
	rx.Close()
	expect(t, tx.Send(within(t), message{listener}), ErrDisconnected)
	CloseAll(message{listener})
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("found %v", err)
	}
	client.Close()
	source.Close()
	tx.Close()
}

func TestGoroutinesShareAListenerThatBlocks(t *testing.T) {
	noLeak(t)
	name := fmt.Sprintf("\x00wormhole-blocking-%d", os.Getpid())
	a := must[*address](t)(newAddress(name))
	socket := socketOf(t, syscall.AF_UNIX, syscall.SOCK_SEQPACKET)
	check(t, a.raw.bind(int(socket.Fd())))
	check(t, syscall.Listen(int(socket.Fd()), 16))
	ctx := within(t)
	listener := must[*Listener[int]](t)(ListenerFromFile[int](socket))
	type outcome struct {
		rx  *Receiver[int]
		err error
	}
	const goroutines, clients = 16, 500
	outcomes := make(chan outcome, goroutines)
	next := func() outcome {
		t.Helper()
		select {
		case o := <-outcomes:
			return o
		case <-ctx.Done():
			t.Fatal("calls still wait")
			return outcome{}
		}
	}
	// All see the client, and one gets it.
	for i := 0; i < clients; i++ {
		gate := make(chan bool)
		for g := 0; g < goroutines; g++ {
			go func() {
				<-gate
				rx, _, err := listener.TryAccept()
				outcomes <- outcome{rx, err}
			}()
		}
		tx := must[*Sender[int]](t)(Connect[int](ctx, name))
		close(gate)
		accepted := 0
		for g := 0; g < goroutines; g++ {
			if o := next(); o.err == nil {
				accepted++
				check(t, o.rx.Close())
			} else {
				expect(t, o.err, ErrEmpty)
			}
		}
		if accepted != 1 {
			t.Fatalf("one client was accepted %d times", accepted)
		}
		check(t, tx.Close())
	}
	for g := 0; g < goroutines; g++ {
		go func() {
			for {
				rx, _, err := listener.Accept(ctx)
				outcomes <- outcome{rx, err}
				if err != nil {
					return
				}
			}
		}()
	}
	for i := 0; i < clients; i++ {
		tx := must[*Sender[int]](t)(Connect[int](ctx, name))
		o := next()
		check(t, o.err)
		check(t, o.rx.Close())
		check(t, tx.Close())
	}
	check(t, listener.Close())
	for g := 0; g < goroutines; g++ {
		expect(t, next().err, ErrClosed)
	}
	socket.Close()
}

func TestErrorsAreWithoutDeceptiveCharacters(t *testing.T) {
	const text = "a\u202eb\u2066c\u200bd\u2028e\U000e0041f\x1bg\u00adhé😀"
	const expected = `a\u202eb\u2066c\u200bd\u2028e\U000e0041f\u001bg\u00adhé😀`
	tx, rx := pair[map[string]int](t, Options{})
	body := `{"` + strings.ReplaceAll(text, "\x1b", `\u001b`) + `":true}`
	rawSend(t, tx.end, []byte(string([]byte{byte(len(body)), 0, 0, 0, 0, 0, 0, 0})+body), nil)
	_, err := rx.Recv(within(t))
	if err == nil || !strings.Contains(err.Error(), expected) {
		t.Errorf("found %v", err)
	}
	// Whatever an error quotes of a message.
	quoted := `"` + strings.ReplaceAll(text, "\x1b", `\u001b`) + `"`
	clean := func(of string, errs ...error) {
		t.Helper()
		for i, err := range errs {
			if err == nil || strings.ContainsAny(err.Error(), "\u202e\u2066\u200b\u2028\U000e0041\x1b\u00ad") {
				t.Errorf("%q, error %d: found %v", of, i, err)
			}
		}
	}
	for _, text := range []string{quoted, "[" + quoted + "]", "{" + quoted + ":1}", "{" + quoted + ":" + quoted + "}", "1" + text} {
		_, asInt := reads[int](t, text)
		_, asChoice := reads[choice](t, text)
		_, asColors := reads[map[color]int](t, text)
		_, asNumbers := reads[map[int]int](t, text)
		_, asTime := reads[time.Time](t, text)
		_, asFile := reads[*os.File](t, text)
		_, asStruct := reads[struct{ X int }](t, text)
		_, asList := reads[[]int](t, text)
		clean(text, asInt, asChoice, asColors, asNumbers, asTime, asFile, asStruct, asList)
	}
	t.Setenv(inheritVariable, text)
	_, inherited := Inherit[int]()
	_, listening := Listen[int]("/missing/" + text)
	clean("a name", inherited, listening, Spawn(exec.Command("/missing/"+text), 1))
	_, err = Connect[int](within(t), "/missing/"+text)
	if err == nil || !strings.Contains(err.Error(), expected) {
		t.Errorf("found %v", err)
	}
	err = &IOError{"open", &os.PathError{Op: "open", Path: text, Err: syscall.ENOENT}}
	if !strings.Contains(err.Error(), expected) {
		t.Errorf("found %v", err)
	}
}

func TestNothingIsNumberedAsAStandardStream(t *testing.T) {
	noLeak(t)
	path := fmt.Sprintf("\x00wormhole-streams-%d", os.Getpid())
	type message struct {
		File *os.File        `json:"file"`
		Tx   *Sender[string] `json:"tx"`
	}
	tx, rx := pair[message](t, Options{})
	file, copyOfTx := memfd(t, "", 0), must[*os.File](t)(tx.File())
	listener := must[*Listener[int]](t)(Listen[int](path))
	saved := must[int](t)(duplicateFd(0))
	check(t, syscall.Close(0))
	var found []int
	note := func(e *end) { found = append(found, e.fd) }
	func() {
		defer func() { check(t, syscall.Dup3(saved, 0, 0)); closeFd(saved) }()
		a, b, err := Channel[string]()
		check(t, err)
		note(a.end)
		note(b.end)
		blob := must[*Blob](t)(NewBlob(nil))
		found = append(found, blob.fd)
		other := must[*Listener[int]](t)(Listen[int](path + "2"))
		note(other.end)
		client := must[*Sender[int]](t)(Connect[int](within(t), path))
		note(client.end)
		server, _, err := listener.Accept(within(t))
		check(t, err)
		note(server.end)
		copied := must[*Sender[message]](t)(SenderFromFile[message](copyOfTx))
		note(copied.end)
		duplicate := must[*os.File](t)(copied.File())
		found = append(found, int(duplicate.Fd()))
		duplicate.Close()
		rawSend(t, tx.end, []byte("\x11\x00\x00\x00\x00\x00\x00\x00{\"file\":0,\"tx\":1}"), []*os.File{file, copyOfTx})
		got := must[message](t)(rx.Recv(within(t)))
		found = append(found, int(got.File.Fd()))
		note(got.Tx.end)
		check(t, tx.SendWithFds(within(t), message{file, a}, file))
		second, beside, err := rx.RecvWithFds(within(t))
		check(t, err)
		found = append(found, int(beside[0].Fd()))
		CloseAll(second)
		closeFiles(beside)
		CloseAll([]any{a, b, blob, other, client, server, copied, got})
	}()
	for _, fd := range found {
		if fd < 3 {
			t.Errorf("found %v", found)
		}
	}
	file.Close()
	copyOfTx.Close()
	listener.Close()
	tx.Close()
	rx.Close()
}

// sandboxes are programs for sandboxes, by their names. Each says what is wrong there.
var sandboxes = map[string]func() error{
	"sendto is denied":       sendWithoutSendto,
	"no packet is accepted":  sendWhatIsRefused,
	"no file can be removed": removeWhatVanishes,
	"nothing is received":    receiveNothing,
	"out of descriptors":     startNoPoller,
}

// inSandbox runs one in a process of its own, because a sandbox is for good.
func inSandbox(t *testing.T, name string) {
	t.Helper()
	cmd := exec.CommandContext(within(t), os.Args[0])
	cmd.Env = append(os.Environ(), "WORMHOLE_TEST_CHILD="+name)
	output, err := cmd.CombinedOutput()
	if err != nil || string(output) != "as expected" {
		t.Errorf("found %v: %s", err, output)
	}
}

// deny denies a system call to this thread from now on: it fails with that error.
func deny(number int, errno syscall.Errno) error {
	runtime.LockOSThread()
	type instruction struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	program := []instruction{
		{0x20, 0, 0, 0},              // the number of the system call
		{0x15, 0, 1, uint32(number)}, // equal?
		{0x06, 0, 0, 0x00050000 | uint32(errno)},
		{0x06, 0, 0, 0x7fff0000}, // allowed
	}
	filter := struct {
		length uint16
		first  *instruction
	}{uint16(len(program)), &program[0]}
	const noNewPrivileges, setSeccomp, modeFilter = 38, 22, 2
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivileges, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, setSeccomp, modeFilter, uintptr(unsafe.Pointer(&filter)))
	if e != 0 {
		return e
	}
	if _, _, e := syscall.RawSyscall6(uintptr(number), ^uintptr(0), 0, 0, 0, 0, 0); e != errno {
		return fmt.Errorf("system call %d is not denied: %w", number, e)
	}
	return nil
}

func TestSendsNeedNoSendto(t *testing.T) { inSandbox(t, "sendto is denied") }

// sendWithoutSendto sends where sendto is denied, as some containers do.
func sendWithoutSendto() error {
	tx, rx, err := Channel[*os.File]()
	if err != nil {
		return err
	}
	if err := deny(syscall.SYS_SENDTO, syscall.EPERM); err != nil {
		return err
	}
	file, err := tx.File()
	if err != nil {
		return err
	}
	if _, err := SenderFromFile[int](file); err != nil {
		return err
	}
	// On this thread: they do not wait.
	if err := tx.TrySend(file); err != nil {
		return err
	}
	_, err = rx.TryRecv()
	return err
}

func TestAKernelThatTakesNoPacketAtAllIsAnErrorAndNoHang(t *testing.T) {
	inSandbox(t, "no packet is accepted")
}

func sendWhatIsRefused() error {
	tx, rx, err := Channel[string]()
	if err != nil {
		return err
	}
	defer CloseAll([]any{tx, rx})
	if err := deny(syscall.SYS_SENDMSG, syscall.EMSGSIZE); err != nil {
		return err
	}
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, message := range []string{"short", strings.Repeat("x", 300_000)} {
		for _, err := range []error{tx.Send(context.Background(), message), tx.TrySend(message)} {
			var io *IOError
			if !errors.As(err, &io) || io.Operation != "send a message" || io.Err != syscall.EMSGSIZE {
				return fmt.Errorf("a message of %d bytes: found %w", len(message), err)
			}
		}
	}
	after, err := os.ReadDir("/proc/self/fd")
	if err == nil && len(after) != len(before) {
		err = fmt.Errorf("%d descriptors are open, %d before", len(after), len(before))
	}
	return err
}

func TestAReceiveThatIsDeniedConsumesNothing(t *testing.T) { inSandbox(t, "nothing is received") }

func receiveNothing() error {
	tx, rx, err := Channel[int]()
	if err != nil {
		return err
	}
	if err := tx.TrySend(5); err != nil {
		return err
	}
	fd, err := rx.end.acquire()
	if err != nil {
		return err
	}
	defer rx.end.release()
	if err := deny(syscall.SYS_RECVMSG, syscall.EPERM); err != nil {
		return err
	}
	for i := 0; i < 2; i++ {
		_, err := rx.Recv(context.Background())
		if _, ok := err.(*IOError); !ok {
			return fmt.Errorf("found %w", err)
		}
		canReceive := []pollFd{{fd: int32(fd), events: pollIn}}
		if err := poll(canReceive, 0); err != nil || canReceive[0].revents != pollIn {
			return fmt.Errorf("the message is gone: %w", err)
		}
	}
	// So a worker ends, and does not answer again and again.
	results, answers, err := Channel[jobResult[int]]()
	if err != nil {
		return err
	}
	err = workOn(workerArgs[int, int]{Jobs: rx, Results: results}, func(job int) (int, error) { return job, nil })
	if _, ok := err.(*IOError); !ok {
		return fmt.Errorf("found %w", err)
	}
	canReceive := []pollFd{{fd: int32(answers.end.fd), events: pollIn}}
	if err := poll(canReceive, 0); err != nil || canReceive[0].revents != 0 {
		return fmt.Errorf("there is an answer: %w", err)
	}
	CloseAll([]any{tx, results, answers}) // not to be collected before
	return nil
}

func TestAStaleFileThatVanishesIsNotMissed(t *testing.T) { inSandbox(t, "no file can be removed") }

// removeWhatVanishes replaces a stale file which is not there any more when it is to be removed.
func removeWhatVanishes() error {
	directory, err := os.MkdirTemp("", "wormhole")
	if err != nil {
		return err
	}
	path := filepath.Join(directory, "socket")
	a, err := newAddress(path)
	if err != nil {
		return err
	}
	listener, err := Listen[int](path)
	if err != nil {
		return err
	}
	if err := listener.end.close(); err != nil {
		return err
	}
	found := make(chan error)
	go func() {
		err := deny(syscall.SYS_UNLINKAT, syscall.ENOENT)
		if err == nil {
			err = a.removeIfStale(path)
		}
		found <- err
	}()
	err = <-found
	if removed := os.RemoveAll(directory); err == nil {
		err = removed
	}
	return err
}

func TestAPollerThatCannotBeNumberedIsClosed(t *testing.T) { inSandbox(t, "out of descriptors") }

// startNoPoller makes an epoll that has the number of a standard stream, which it cannot get rid of.
func startNoPoller() error {
	if err := syscall.Close(0); err != nil {
		return err
	}
	if err := deny(syscall.SYS_FCNTL, syscall.EMFILE); err != nil {
		return err
	}
	var p epollPoller
	if _, err := p.start(); err != syscall.EMFILE {
		return fmt.Errorf("found %w", err)
	}
	if err := syscall.Close(0); err != syscall.EBADF {
		return fmt.Errorf("the epoll is still open: %w", err)
	}
	return nil
}

// controlMessage makes a control message, padded as the kernel pads it.
func controlMessage(level, kind int32, content []byte) []byte {
	header := syscall.Cmsghdr{Level: level, Type: kind}
	header.SetLen(syscall.SizeofCmsghdr + len(content))
	bytes := append([]byte(nil), (*[syscall.SizeofCmsghdr]byte)(unsafe.Pointer(&header))[:]...)
	bytes = append(bytes, content...)
	return append(bytes, make([]byte, -len(bytes)&7)...)
}

func TestControlMessagesOfAllKindsAreWalkedOver(t *testing.T) {
	noLeak(t)
	const rights = syscall.SCM_RIGHTS
	number := func(fds ...int) (list []byte) {
		for _, fd := range fds {
			n := int32(fd)
			list = append(list, (*[4]byte)(unsafe.Pointer(&n))[:]...)
		}
		return list
	}
	const none = 1 << 30 // what no descriptor has
	walk := func(pidfd, cut int) []int {
		control := bytes.Join([][]byte{
			controlMessage(syscall.SOL_SOCKET, rights, nil), // an empty one does not end it
			controlMessage(syscall.SOL_SOCKET, syscall.SCM_CREDENTIALS, number(none, 1, 2)),
			controlMessage(syscall.SOL_SOCKET, 3, []byte("label\x00")),
			controlMessage(syscall.SOL_SOCKET, scmPidfd, number(pidfd)),
			controlMessage(syscall.SOL_SOCKET, scmPidfd, number(-int(syscall.ESRCH))),
			controlMessage(41, rights, number(none)),
			controlMessage(syscall.SOL_SOCKET, rights, number(none+1)),
			controlMessage(syscall.SOL_SOCKET, rights, number(none+2, none+3)), // up to the end, without padding
		}, nil)
		// In a buffer of its own, so that to read beyond its end is an error.
		return unpackFds(append(make([]byte, 0, len(control)), control[:len(control)-cut]...))
	}
	pidfd := must[int](t)(memfdCreate("test", 0))
	if fds := walk(pidfd, 0); fmt.Sprint(fds) != fmt.Sprint([]int{none + 1, none + 2, none + 3}) {
		t.Errorf("found %v", fds)
	}
	for cut := 0; cut <= 190; cut++ {
		walk(none, cut)
	}
	if _, err := fcntl(pidfd, syscall.F_GETFD, 0); err != syscall.EBADF {
		t.Errorf("found %v: what nobody asked for is not closed", err)
	}
	unpackFds([]byte(strings.Repeat("\xff", 100)))
}
