package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/exp/bundle/witbundle"
	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// watchWITs reports every WIT-SVID until there were enough, each validated by the WIT bundles, with the key that it is bound to.
func watchWITs(ctx context.Context, updates int) error {
	client, err := workloadapi.New(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher := &witWatcher{ctx: ctx, client: client, want: updates, done: cancel}
	err = client.WatchWITSVIDs(ctx, watcher, "")
	if watcher.failed != nil {
		return watcher.failed
	}
	if watcher.seen >= updates {
		say(map[string]any{"event": "done", "updates": watcher.seen})
		return nil
	}
	return fmt.Errorf("watch: %w after %d of %d updates", err, watcher.seen, updates)
}

type witWatcher struct {
	ctx        context.Context
	client     *workloadapi.Client
	want, seen int
	failed     error
	done       func()
}

func (w *witWatcher) OnWITSVIDsUpdate(svids []*witsvid.SVID) {
	bundles, err := w.client.FetchWITBundles(w.ctx)
	if err != nil {
		w.fail(fmt.Errorf("fetch WIT bundles: %w", err))
		return
	}
	for _, svid := range svids {
		w.report(svid, bundles)
	}
	if w.seen++; w.seen >= w.want {
		w.done()
	}
}

func (w *witWatcher) report(svid *witsvid.SVID, bundles *witbundle.Set) {
	validated, err := witsvid.ParseAndValidate(svid.Marshal(), bundles)
	if err != nil {
		w.fail(fmt.Errorf("validate the WIT-SVID: %w", err))
		return
	}
	key, isKey := svid.PrivateKey.(*ecdsa.PrivateKey)
	if !isKey {
		w.fail(fmt.Errorf("the key is a %T", svid.PrivateKey))
		return
	}
	authorities := 0
	if bundle, has := bundles.Get(validated.ID.TrustDomain()); has {
		authorities = len(bundle.WITAuthorities())
	}
	say(map[string]any{
		"event":       "wit",
		"id":          validated.ID.String(),
		"hint":        svid.Hint,
		"kid":         validated.KeyID,
		"expiry":      validated.Expiry.UTC().Format(time.RFC3339),
		"holds_key":   key.PublicKey.Equal(validated.PublicKey),
		"key":         fmt.Sprintf("%x", key.PublicKey.X),
		"authorities": authorities,
	})
}

func (w *witWatcher) OnWITSVIDsWatchError(err error) {
	if !errors.Is(err, context.Canceled) && w.seen < w.want {
		say(map[string]any{"event": "watch-error", "error": err.Error()})
	}
}

func (w *witWatcher) fail(err error) {
	w.failed = err
	w.done()
}
