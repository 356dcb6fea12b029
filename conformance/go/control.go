package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// control is the control port.
type control struct {
	ctx  context.Context
	x509 *workloadapi.X509Source

	mutex sync.Mutex
	jwt   *workloadapi.JWTSource
}

func newControl(ctx context.Context, x509 *workloadapi.X509Source) http.Handler {
	c := &control{ctx: ctx, x509: x509}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/jwt/validate", c.validate)
	mux.HandleFunc("POST /v1/jwt/fetch", c.fetch)
	mux.HandleFunc("POST /v1/x509/dial", c.dial)
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) {
		ok(w, map[string]any{"sdk": "go-spiffe", "sdk_version": "v2.9.0", "language": "go"})
	})
	return mux
}

// source is made with the first request that needs it: tests of X.509 alone may serve no JWT bundles.
func (c *control) source() (*workloadapi.JWTSource, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.jwt != nil {
		return c.jwt, nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return nil, fmt.Errorf("JWT source: %w", err)
	}
	c.jwt = source
	return source, nil
}

func (c *control) validate(w http.ResponseWriter, r *http.Request) {
	var request struct{ Token, Audience string }
	if !read(w, r, &request) {
		return
	}
	source, err := c.source()
	if err != nil {
		failed(w, err)
		return
	}
	svid, err := jwtsvid.ParseAndValidate(request.Token, source, []string{request.Audience})
	if err != nil {
		rejected(w, err)
		return
	}
	ok(w, map[string]any{"spiffe_id": svid.ID.String(), "claims": svid.Claims})
}

func (c *control) fetch(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Audience []string
		SpiffeID string `json:"spiffe_id"`
	}
	if !read(w, r, &request) {
		return
	}
	if len(request.Audience) == 0 {
		failed(w, fmt.Errorf("no audience"))
		return
	}
	params := jwtsvid.Params{Audience: request.Audience[0], ExtraAudiences: request.Audience[1:]}
	if request.SpiffeID != "" {
		subject, err := spiffeid.FromString(request.SpiffeID)
		if err != nil {
			failed(w, err)
			return
		}
		params.Subject = subject
	}
	source, err := c.source()
	if err != nil {
		failed(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	found, err := source.FetchJWTSVIDs(ctx, params)
	if err != nil {
		failed(w, err)
		return
	}
	svids := []map[string]any{}
	for _, svid := range found {
		svids = append(svids, map[string]any{"spiffe_id": svid.ID.String(), "token": svid.Marshal(), "hint": svid.Hint})
	}
	ok(w, map[string]any{"svids": svids})
}

func (c *control) dial(w http.ResponseWriter, r *http.Request) {
	var request struct{ Address string }
	if !read(w, r, &request) {
		return
	}
	id, said, err := dial(r.Context(), c.x509, request.Address)
	switch {
	case errors.Is(err, errRefused):
		rejected(w, err)
	case err != nil:
		failed(w, err)
	default:
		ok(w, map[string]any{"spiffe_id": id, "message": said})
	}
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		failed(w, err)
		return false
	}
	return true
}

func ok(w http.ResponseWriter, fields map[string]any) {
	fields["status"] = "ok"
	answer(w, http.StatusOK, fields)
}

func rejected(w http.ResponseWriter, err error) {
	answer(w, http.StatusUnprocessableEntity, map[string]any{"status": "rejected", "message": err.Error()})
}

func failed(w http.ResponseWriter, err error) {
	answer(w, http.StatusInternalServerError, map[string]any{"status": "error", "message": err.Error()})
}

func answer(w http.ResponseWriter, code int, fields map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(fields)
}
