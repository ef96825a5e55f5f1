//go:build linux

package wormhole

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// workerArgs is what a pool hands to a worker that is a program.
type workerArgs[J, R any] struct {
	Tuple
	Jobs    *Receiver[J]
	Results *Sender[jobResult[R]]
}

// jobResult is Rust's Result of a job.
type jobResult[R any] struct {
	Enum
	Ok  *R
	Err *jobFailure
}

type jobFailure struct {
	Message   string  `json:"message"`
	Place     *string `json:"place"`
	Backtrace *string `json:"backtrace"`
}

// Work makes this program a worker of a Pool of the Rust crate: it takes the two channels with [Inherit], runs work for
// each job, one after the other, and returns nil when there are no more.
//
//	func main() {
//		err := wormhole.Work(func(path string) (int, error) {
//			text, err := os.ReadFile(path)
//			return len(strings.Fields(string(text))), err
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//	}
//
// An error fails the job and not the worker, and so does a panic, also of a method that reads the job or writes the result;
// it arrives with its place and its stack. So does a message that is no J, or a result that cannot be written. A job whose goroutine ends, with runtime.Goexit, or that
// ends the program is reported by the pool as one whose worker has died. What a job and its result hold is closed once
// the result has been sent, as [CloseAll] does.
//
// Errors: those of [Inherit], and an [*IOError].
func Work[J, R any](work func(job J) (R, error)) error {
	args, err := Inherit[workerArgs[J, R]]()
	if err != nil {
		return err
	}
	defer CloseAll(args)
	return workOn(args, work)
}

func workOn[J, R any](args workerArgs[J, R], work func(job J) (R, error)) error {
	ctx := context.Background()
	for {
		var job J
		var result jobResult[R]
		var err error
		failure := recovering(func() { job, err = args.Jobs.Recv(ctx) })
		switch {
		case failure != nil: // that job is lost
			result.Err = failure
		case err == ErrDisconnected:
			return nil
		case err == ErrClosed || isIO(err):
			return err
		case err != nil: // that one as well
			result.Err = &jobFailure{Message: err.Error()}
		default:
			result = runJob(work, job)
		}
		failure = recovering(func() { err = args.Results.Send(ctx, result) })
		if failure == nil && err != nil && err != ErrDisconnected {
			failure = &jobFailure{Message: err.Error()}
		}
		if failure != nil {
			err = args.Results.Send(ctx, jobResult[R]{Err: failure})
		}
		CloseAll(result)
		CloseAll(job)
		if err == ErrDisconnected {
			return nil // nobody wants results any more
		}
		if err != nil {
			return err
		}
	}
}

// isIO tells whether it is an IOError itself, not a DecodeError of which one is the cause.
func isIO(err error) bool {
	_, is := err.(*IOError)
	return is
}

func runJob[J, R any](work func(job J) (R, error), job J) (result jobResult[R]) {
	failure := recovering(func() {
		value, err := work(job)
		if err != nil {
			CloseAll(value)
			result.Err = &jobFailure{Message: validText(err.Error())}
		} else {
			result.Ok = &value
		}
	})
	if failure != nil {
		return jobResult[R]{Err: failure}
	}
	return result
}

// recovering runs what may call methods of the program, and describes its panic, if it panics.
func recovering(do func()) (failure *jobFailure) {
	returned := false
	defer func() {
		if panicked := recover(); !returned { // of nil, too
			failure = panicOf(panicked)
		}
	}()
	do()
	returned = true
	return nil
}

// panicOf describes a panic. It is called by the deferred function that recovers from it, while the stack is still there.
func panicOf(panicked any) *jobFailure {
	stack := validText(string(debug.Stack()))
	f := &jobFailure{Message: validText(fmt.Sprint(panicked)), Backtrace: &stack}
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		// What package runtime does between the panic and the deferred function.
		if frame.File != "" && !strings.HasPrefix(frame.Function, "runtime.") {
			place := validText(fmt.Sprintf("%s:%d", frame.File, frame.Line))
			f.Place = &place
			break
		}
	}
	return f
}

// validText makes any text one that can be sent.
func validText(text string) string { return strings.ToValidUTF8(text, "\ufffd") }
