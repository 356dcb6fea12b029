// Command client-go proves that go-spiffe, unmodified, gets what it asks of the Workload API: it fetches and watches X.509
// and JWT material, validates a JWT-SVID both here and by the Workload API, and calls a server over mTLS. It prints one JSON
// object a line and never a key or a token; it exits 0 after the wanted number of X.509 updates. Instead it can watch WIT-SVIDs
// (-wits), or be, until it is terminated, a server over mTLS (-listen), a client of a bundle endpoint (-watch), or a bundle endpoint
// (-serve-bundle).
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	audience := flag.String("audience", "", "audience of the JWT-SVID to fetch and validate")
	updates := flag.Int("updates", 1, "X.509 updates to see before exiting")
	wits := flag.Int("wits", 0, "WIT-SVID updates to see before exiting, instead of all else")
	call := flag.String("call", "", "HOST:PORT of an mTLS server to call once")
	expect := flag.String("expect", "", "SPIFFE ID which that server must have")
	listen := flag.String("listen", "", "address to serve mTLS at, instead of all else")
	allow := flag.String("allow", "", "SPIFFE ID that may call that server")
	var endpoint watched
	flag.StringVar(&endpoint.url, "watch", "", "URL of a bundle endpoint to watch, instead of all else")
	flag.StringVar(&endpoint.profile, "profile", "web", "that endpoint's profile: web or spiffe")
	flag.StringVar(&endpoint.trustDomain, "trust-domain", "", "the trust domain whose bundle is there")
	flag.StringVar(&endpoint.id, "spiffe-id", "", "profile spiffe: the endpoint's SPIFFE ID")
	flag.StringVar(&endpoint.bundle, "bundle", "", "profile spiffe: file of the bundle to begin with")
	flag.StringVar(&endpoint.authorities, "ca", "", "profile web: file of the certificate authorities")
	var own served
	flag.StringVar(&own.spiffe, "serve-bundle", "", "address of a bundle endpoint of the profile https_spiffe, instead of all else")
	flag.StringVar(&own.web, "serve-web", "", "address of the same endpoint by the profile https_web")
	flag.StringVar(&own.certificate, "certificate", "", "file of that one's certificate chain")
	flag.StringVar(&own.key, "key", "", "file of that one's key")
	flag.Uint64Var(&own.sequence, "sequence", 1, "sequence of the first bundle that is served")
	flag.DurationVar(&own.hint, "refresh-hint", time.Minute, "refresh hint of the bundles that are served")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var err error
	switch {
	case *wits > 0:
		err = watchWITs(ctx, *wits)
	case *listen != "":
		err = serve(ctx, *listen, *allow)
	case endpoint.url != "":
		err = watchEndpoint(ctx, endpoint)
	case own.spiffe != "":
		err = serveEndpoint(ctx, own)
	default:
		err = run(ctx, *audience, *updates, *call, *expect)
	}
	if err != nil {
		say(map[string]any{"event": "error", "error": err.Error()})
		os.Exit(1)
	}
}

func run(ctx context.Context, audience string, updates int, call, expect string) error {
	// The address comes from SPIFFE_ENDPOINT_SOCKET.
	client, err := workloadapi.New(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()

	if _, err := client.FetchX509SVID(ctx); err != nil {
		return fmt.Errorf("fetch an X509-SVID: %w", err)
	}
	if err := bundles(ctx, client); err != nil {
		return err
	}
	if audience != "" {
		if err := token(ctx, client, audience); err != nil {
			return err
		}
	}
	if call != "" {
		if err := mtls(ctx, client, call, expect); err != nil {
			return err
		}
	}
	return watch(ctx, client, updates)
}

// bundles fetches both kinds and says how many authorities the trust domains have.
func bundles(ctx context.Context, client *workloadapi.Client) error {
	x509, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return fmt.Errorf("fetch X.509 bundles: %w", err)
	}
	jwt, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return fmt.Errorf("fetch JWT bundles: %w", err)
	}
	for _, bundle := range x509.Bundles() {
		line := map[string]any{
			"event":            "bundle",
			"trust_domain":     bundle.TrustDomain().Name(),
			"x509_authorities": len(bundle.X509Authorities()),
		}
		if keys, ok := jwt.Get(bundle.TrustDomain()); ok {
			line["jwt_authorities"] = len(keys.JWTAuthorities())
		}
		say(line)
	}
	return nil
}

// token fetches a JWT-SVID, validates it against the bundle, and has the Workload API validate it.
func token(ctx context.Context, client *workloadapi.Client, audience string) error {
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return fmt.Errorf("fetch a JWT-SVID: %w", err)
	}
	set, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return fmt.Errorf("fetch JWT bundles: %w", err)
	}
	here, err := jwtsvid.ParseAndValidate(svid.Marshal(), set, []string{audience})
	if err != nil {
		return fmt.Errorf("validate the JWT-SVID here: %w", err)
	}
	there, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return fmt.Errorf("have the Workload API validate the JWT-SVID: %w", err)
	}
	if here.ID != there.ID {
		return fmt.Errorf("two validations, two ids: %s and %s", here.ID, there.ID)
	}
	say(map[string]any{
		"event":     "jwt",
		"id":        here.ID.String(),
		"audience":  here.Audience,
		"expiry":    here.Expiry.UTC().Format(time.RFC3339),
		"validated": there.ID.String(),
	})
	return nil
}

// mtls makes one handshake and reads the line in which the server says whom it saw.
func mtls(ctx context.Context, client *workloadapi.Client, target, expect string) error {
	peer, err := spiffeid.FromString(expect)
	if err != nil {
		return fmt.Errorf("-expect: %w", err)
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClient(client))
	if err != nil {
		return fmt.Errorf("X.509 source: %w", err)
	}
	defer source.Close()

	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return fmt.Errorf("dial %s: %w", target, err)
	}
	defer conn.Close()
	answer, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	var seen struct {
		Peer string `json:"peer"`
	}
	if err := json.Unmarshal(answer, &seen); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	say(map[string]any{"event": "handshake", "local": seen.Peer, "peer": peer.String()})
	return nil
}

// serve accepts mTLS from one SPIFFE ID, and answers with a line that says whom it saw.
func serve(ctx context.Context, address, allow string) error {
	peer, err := spiffeid.FromString(allow)
	if err != nil {
		return fmt.Errorf("-allow: %w", err)
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return fmt.Errorf("X.509 source: %w", err)
	}
	defer source.Close()
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer))
	config.SessionTicketsDisabled = true
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	say(map[string]any{"event": "listening", "address": address})
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go answer(conn.(*tls.Conn), peer)
	}
}

func answer(conn *tls.Conn, peer spiffeid.ID) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.Handshake(); err != nil {
		say(map[string]any{"event": "failed", "error": err.Error()})
		return
	}
	line, err := json.Marshal(map[string]any{"peer": peer.String()})
	if err != nil {
		panic(err)
	}
	conn.Write(append(line, '\n'))
}

// watch reports every X.509 context until there were enough, with the JWT bundles watched beside it.
func watch(ctx context.Context, client *workloadapi.Client, updates int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go client.WatchJWTBundles(ctx, jwtWatcher{})

	watcher := &x509Watcher{want: updates, done: cancel}
	err := client.WatchX509Context(ctx, watcher)
	if watcher.seen >= updates {
		say(map[string]any{"event": "done", "updates": watcher.seen})
		return nil
	}
	if err == nil {
		err = errors.New("the stream ended")
	}
	return fmt.Errorf("watch: %w after %d of %d updates", err, watcher.seen, updates)
}

type x509Watcher struct {
	want, seen int
	done       func()
}

func (w *x509Watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svid := update.DefaultSVID()
	leaf := svid.Certificates[0]
	say(map[string]any{
		"event":     "x509",
		"id":        svid.ID.String(),
		"serial":    fmt.Sprintf("%x", leaf.SerialNumber),
		"issuer":    leaf.Issuer.String(),
		"not_after": leaf.NotAfter.UTC().Format(time.RFC3339),
	})
	if w.seen++; w.seen >= w.want {
		w.done()
	}
}

func (w *x509Watcher) OnX509ContextWatchError(err error) {
	if !errors.Is(err, context.Canceled) && w.seen < w.want {
		say(map[string]any{"event": "watch-error", "error": err.Error()})
	}
}

type jwtWatcher struct{}

func (jwtWatcher) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	say(map[string]any{"event": "jwt-bundles", "trust_domains": set.Len()})
}

func (jwtWatcher) OnJWTBundlesWatchError(error) {}

func say(line map[string]any) {
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(encoded, '\n'))
}
