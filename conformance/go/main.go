// Command go-spiffe-harness shows the conformance suite what go-spiffe does, by version 1 of the harness contract. Every SPIFFE
// decision is go-spiffe's: this program only passes requests on.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// limit bounds one handshake or one request.
const limit = 8 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	// The address comes from SPIFFE_ENDPOINT_SOCKET. This returns with the first X509-SVID.
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return fmt.Errorf("X.509 source: %w", err)
	}
	defer source.Close()

	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())
	// Each connection must be authenticated by the bundles of its time.
	config.SessionTicketsDisabled = true
	x509, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	failed := make(chan error, 2)
	go func() { failed <- serveX509(x509) }()
	go func() { failed <- http.Serve(control, newControl(ctx, source)) }()

	fmt.Println("SPIFFE_HARNESS_VERSION=1")
	fmt.Printf("SPIFFE_X509_PORT=%d\n", x509.Addr().(*net.TCPAddr).Port)
	fmt.Printf("SPIFFE_CONTROL_PORT=%d\n", control.Addr().(*net.TCPAddr).Port)
	fmt.Println("READY")
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

func serveX509(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go greet(conn.(*tls.Conn))
	}
}

// greet tells an authenticated client its SPIFFE ID.
func greet(conn *tls.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if err := conn.Handshake(); err != nil {
		fmt.Fprintln(os.Stderr, "handshake:", err)
		return
	}
	id, err := spiffetls.PeerIDFromConnectionState(conn.ConnectionState())
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		return
	}
	fmt.Fprintf(conn, "%s\n", id)
}

// errRefused says that go-spiffe refused a server.
var errRefused = errors.New("refused")

// dial authenticates a server; it returns its SPIFFE ID and what it said, which of another harness is whom it saw.
func dial(ctx context.Context, source *workloadapi.X509Source, address string) (id, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var dialer net.Dialer
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", "", err
	}
	defer plain.Close()
	conn := tls.Client(plain, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny()))
	if err := conn.HandshakeContext(ctx); err != nil {
		// What the network or the server did is not go-spiffe's decision.
		var network net.Error
		if errors.As(err, &network) || errors.Is(err, io.EOF) {
			return "", "", err
		}
		return "", "", fmt.Errorf("%w: %w", errRefused, err)
	}
	peer, err := spiffetls.PeerIDFromConnectionState(conn.ConnectionState())
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errRefused, err)
	}
	conn.SetReadDeadline(time.Now().Add(limit / 2))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return peer.String(), err.Error(), nil
	}
	return peer.String(), strings.TrimSpace(line), nil
}
