//go:build linux

package wormhole

import (
	"context"
	"testing"
)

func BenchmarkSendAndReceive(b *testing.B) {
	tx, rx, err := Channel[record]()
	if err != nil {
		b.Fatal(err)
	}
	message := record{1776, "hello world!", []byte{5, 4, 3, 2, 1}}
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		if err := tx.Send(context.Background(), message); err != nil {
			b.Fatal(err)
		}
		if _, err := rx.Recv(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	there, requests, _ := Channel[int]()
	back, replies, _ := Channel[int]()
	go func() {
		for {
			request, err := requests.Recv(ctx)
			if err != nil {
				return
			}
			_ = back.Send(ctx, request)
		}
	}()
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		_ = there.Send(ctx, i)
		if got, err := replies.Recv(ctx); got != i || err != nil {
			b.Fatal(err)
		}
	}
	there.Close()
}
