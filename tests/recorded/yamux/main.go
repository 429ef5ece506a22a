// Plays yamux sessions with the implementation of hashicorp, for the tests of ours.
//
//	record FILE         both ends are Go's; every write is recorded, in the order in which it happened
//	talk client|server  one end, on stdin and stdout, for live.py; exits with 0 if all went as it must
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must2[T any](value T, err error) T {
	must(err)
	return value
}

func pattern(size int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
}

func expect(stream io.Reader, want []byte) {
	got := make([]byte, len(want))
	must2(io.ReadFull(stream, got))
	if !bytes.Equal(got, want) {
		panic("other bytes than were sent")
	}
}

func expectEnd(stream io.Reader) {
	if n, err := stream.Read(make([]byte, 1)); err != io.EOF {
		panic(fmt.Sprintf("%d bytes and %v instead of the end", n, err))
	}
}

// A journal is a gzip of entries: 'c' or 's' for who wrote, the length (4 bytes, big-endian), the bytes.
type journal struct {
	lock sync.Mutex
	file *gzip.Writer
}

type recorded struct {
	net.Conn
	who byte
	*journal
}

func (r recorded) Write(data []byte) (int, error) {
	r.lock.Lock()
	entry := binary.BigEndian.AppendUint32([]byte{r.who}, uint32(len(data)))
	must2(r.file.Write(append(entry, data...)))
	r.lock.Unlock()
	return r.Conn.Write(data)
}

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.LogOutput = io.Discard
	return c
}

func record(path string) {
	file := must2(os.Create(path))
	notes := &journal{file: must2(gzip.NewWriterLevel(file, gzip.BestCompression))}
	left, right := net.Pipe()
	clientConfig, serverConfig := config(), config()
	clientConfig.StreamCloseTimeout = 200 * time.Millisecond
	serverConfig.AcceptBacklog = 2
	serverConfig.MaxStreamWindowSize = 512 * 1024
	client := must2(yamux.Client(recorded{left, 'c', notes}, clientConfig))
	server := must2(yamux.Server(recorded{right, 's', notes}, serverConfig))

	// A word each way, then data beyond a window, a half close, and words on the half that is left.
	a := must2(client.OpenStream())
	must2(a.Write([]byte("hello")))
	b := must2(server.AcceptStream())
	expect(b, []byte("hello"))
	must2(b.Write([]byte("world")))
	expect(a, []byte("world"))
	go func() {
		must2(a.Write(pattern(1200000)))
		must(a.Close())
	}()
	expect(b, pattern(1200000))
	expectEnd(b)
	must2(b.Write([]byte("after the half close")))
	must(b.Close())

	// The server opens one, and both sides write more than a window.
	c := must2(server.OpenStream())
	d := must2(client.AcceptStream())
	done := make(chan bool)
	go func() { must2(c.Write(pattern(300000))); done <- true }()
	go func() { must2(d.Write(pattern(700000))); done <- true }()
	go func() { expect(d, pattern(300000)); done <- true }()
	expect(c, pattern(700000))
	<-done
	<-done
	<-done
	must(c.Close())
	expectEnd(d)
	must(d.Close())

	must2(client.Ping())
	must2(server.Ping())
	must2(client.Ping())

	// Two wait to be accepted; the third is one too many, and the server resets it.
	one, two := must2(client.OpenStream()), must2(client.OpenStream())
	three := must2(client.OpenStream())
	if _, err := three.Read(make([]byte, 1)); err != yamux.ErrConnectionReset {
		panic(err)
	}
	// The client closes one, which the server never does: the client resets it after a time.
	four := must2(server.AcceptStream())
	must2(one.Write([]byte("left alone")))
	expect(four, []byte("left alone"))
	must(one.Close())
	expectEnd(four)
	for err := error(nil); err != yamux.ErrConnectionReset; {
		time.Sleep(10 * time.Millisecond)
		_, err = four.Write([]byte("."))
	}
	five := must2(server.AcceptStream())
	must(two.Close())
	expectEnd(five)
	must(five.Close())

	must(client.GoAway())
	must(server.GoAway())
	must2(client.Ping())
	must(notes.file.Close())
	must(file.Close())
}

type stdio struct {
	io.Reader
	io.WriteCloser
}

func talk(role string) {
	start := yamux.Client
	if role == "server" {
		start = yamux.Server
	}
	settings := config()
	settings.LogOutput = os.Stderr
	settings.MaxStreamWindowSize = 1024 * 1024
	session := must2(start(stdio{os.Stdin, os.Stdout}, settings))

	// Ours: more than a window, and the answer is how much of it arrived.
	ours := must2(session.OpenStream())
	must2(ours.Write(pattern(5000000)))
	expect(ours, []byte("5000000"))
	must(ours.Close())
	// Theirs, the first: all that comes goes back, until the end.
	echo := must2(session.AcceptStream())
	must2(io.Copy(echo, echo))
	must(echo.Close())
	// Theirs, the second: reset by them.
	doomed := must2(session.AcceptStream())
	if _, err := io.Copy(io.Discard, doomed); err != yamux.ErrConnectionReset {
		panic(err)
	}
	for i := 0; i < 100; i++ {
		must2(session.Ping())
	}
	must(session.GoAway())
	for { // until they go away too
		stream, err := session.OpenStream()
		if err == yamux.ErrRemoteGoAway {
			return
		}
		must(err)
		must(stream.Close())
		time.Sleep(5 * time.Millisecond)
	}
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "record":
		record(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "talk":
		talk(os.Args[2])
	default:
		panic("record FILE, or talk client|server")
	}
}
