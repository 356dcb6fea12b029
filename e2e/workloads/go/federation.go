package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// retry is how long the watch waits while it knows no refresh hint, which is until the first bundle came.
const retry = time.Second

// watched is a bundle endpoint, and how to authenticate it.
type watched struct {
	url, trustDomain, profile string
	// For the profile "spiffe": the endpoint's SPIFFE ID, and the file of the bundle to begin with.
	id, bundle string
	// For the profile "web": the file of the authorities, PEM.
	authorities string
}

// watchEndpoint reports each new bundle of an endpoint until it is told to end.
func watchEndpoint(ctx context.Context, endpoint watched) error {
	trustDomain, err := spiffeid.TrustDomainFromString(endpoint.trustDomain)
	if err != nil {
		return fmt.Errorf("-trust-domain: %w", err)
	}
	watcher := &bundleWatcher{trusted: spiffebundle.NewSet()}
	var authenticated federation.FetchOption
	switch endpoint.profile {
	case "spiffe":
		id, err := spiffeid.FromString(endpoint.id)
		if err != nil {
			return fmt.Errorf("-spiffe-id: %w", err)
		}
		first, err := spiffebundle.Load(trustDomain, endpoint.bundle)
		if err != nil {
			return fmt.Errorf("-bundle: %w", err)
		}
		watcher.trusted.Add(first)
		authenticated = federation.WithSPIFFEAuth(watcher.trusted, id)
	case "web":
		pem, err := os.ReadFile(endpoint.authorities)
		if err != nil {
			return fmt.Errorf("-ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("-ca: no certificate")
		}
		authenticated = federation.WithWebPKIRoots(roots)
	default:
		return fmt.Errorf("-profile: %q is neither web nor spiffe", endpoint.profile)
	}
	err = federation.WatchBundle(ctx, trustDomain, endpoint.url, watcher, authenticated)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type bundleWatcher struct {
	// What an endpoint of the profile "spiffe" is verified by: the bundle that came last.
	trusted *spiffebundle.Set
}

func (w *bundleWatcher) NextRefresh(hint time.Duration) time.Duration {
	if hint == 0 {
		return retry
	}
	return hint
}

func (w *bundleWatcher) OnUpdate(bundle *spiffebundle.Bundle) {
	w.trusted.Add(bundle)
	line := map[string]any{
		"event":            "update",
		"trust_domain":     bundle.TrustDomain().Name(),
		"x509_authorities": len(bundle.X509Authorities()),
		"jwt_authorities":  len(bundle.JWTAuthorities()),
	}
	if sequence, ok := bundle.SequenceNumber(); ok {
		line["sequence"] = sequence
	}
	if hint, ok := bundle.RefreshHint(); ok {
		line["refresh_hint"] = hint.Seconds()
	}
	say(line)
}

func (w *bundleWatcher) OnError(err error) {
	if !errors.Is(err, context.Canceled) {
		say(map[string]any{"event": "watch-error", "error": err.Error()})
	}
}

// served says where the bundle of the pod's own trust domain is served, and how it is numbered.
type served struct {
	// The address of the profile https_spiffe, with the pod's own X509-SVID.
	spiffe string
	// The address of the profile https_web, with a certificate from files.
	web, certificate, key string
	// The Workload API has no sequence: this is the first, and each other bundle has the next one.
	sequence uint64
	hint     time.Duration
}

// serveEndpoint serves both profiles until it is told to end.
func serveEndpoint(ctx context.Context, options served) error {
	own, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return fmt.Errorf("X.509 source: %w", err)
	}
	defer own.Close()
	svid, err := own.GetX509SVID()
	if err != nil {
		return fmt.Errorf("X509-SVID: %w", err)
	}
	bundles, err := workloadapi.NewBundleSource(ctx)
	if err != nil {
		return fmt.Errorf("bundle source: %w", err)
	}
	defer bundles.Close()
	source := &numberedBundles{source: bundles, sequence: options.sequence, hint: options.hint}
	handler, err := federation.NewHandler(svid.ID.TrustDomain(), source)
	if err != nil {
		return fmt.Errorf("handler: %w", err)
	}

	spiffe := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         tlsconfig.TLSServerConfig(own),
	}
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer spiffe.Close()
	defer web.Close()
	spiffeListener, err := net.Listen("tcp", options.spiffe)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	webListener, err := net.Listen("tcp", options.web)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	failed := make(chan error, 2)
	go func() { failed <- spiffe.ServeTLS(spiffeListener, "", "") }()
	go func() { failed <- web.ServeTLS(webListener, options.certificate, options.key) }()
	say(map[string]any{"event": "listening", "spiffe": options.spiffe, "web": options.web})
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// numberedBundles adds to bundles what the Workload API does not say: sequence and refresh hint.
type numberedBundles struct {
	source spiffebundle.Source
	hint   time.Duration

	mutex    sync.Mutex
	sequence uint64
	last     *spiffebundle.Bundle
}

func (n *numberedBundles) GetBundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	found, err := n.source.GetBundleForTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	bundle := found.Clone()
	bundle.SetRefreshHint(n.hint)
	bundle.SetSequenceNumber(n.sequence)
	if n.last != nil && !bundle.Equal(n.last) {
		n.sequence++
		bundle.SetSequenceNumber(n.sequence)
	}
	n.last = bundle
	return bundle, nil
}
