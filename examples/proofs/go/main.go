// Command gateway is a service of the standard library alone. Its caller proves who it is by a Workload Proof Token, it signs its own
// request to the next service, and accepts only a response that this service has signed.
//
//	gateway LISTEN ORIGIN CALLER NEXT-URL NEXT-ID
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	listen, origin, caller := os.Args[1], os.Args[2], os.Args[3]
	log.Fatal(http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return
		}
		var seen struct {
			ID       string `json:"spiffe_id"`
			Reason   string
			Response struct {
				Status  int
				Headers [][2]string
				Body    string
			}
		}
		status, err := ask("verify-request", map[string]any{"proofs": []string{"wpt"}, "origins": []string{origin},
			"callers": []string{caller}, "request": describe(target(r), r.Header, body)}, &seen)
		switch {
		case err != nil:
			log.Print(err)
			http.Error(w, "", http.StatusServiceUnavailable)
		case status == http.StatusForbidden:
			log.Print(seen.Reason)
			for _, field := range seen.Response.Headers {
				w.Header().Set(field[0], field[1])
			}
			w.WriteHeader(seen.Response.Status)
			io.WriteString(w, seen.Response.Body)
		default:
			answer, err := call(os.Args[4], os.Args[5], body)
			if err != nil {
				log.Print(err)
				http.Error(w, "", http.StatusBadGateway)
				return
			}
			fmt.Fprintf(w, "%s by wpt\n%s", seen.ID, answer)
		}
	})))
}

// call sends a signed request, and returns what the server with that id has signed.
func call(url, server string, body []byte) (string, error) {
	request, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	audience := request.URL.Scheme + "://" + request.URL.Host + request.URL.EscapedPath()
	request.Header.Set("Content-Type", "text/plain")
	var proof struct {
		Nonce   string
		Headers [][2]string
	}
	status, err := ask("prove-request", map[string]any{"proof": "http-signature", "audience": audience, "sign_response": true,
		"request": describe(target(request), request.Header, body)}, &proof)
	if err != nil || status != http.StatusOK {
		return "", errors.Join(errors.New("no proof"), err)
	}
	for _, field := range proof.Headers {
		request.Header.Set(field[0], field[1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var seen struct{ Reason string }
	status, err = ask("verify-response", map[string]any{"servers": []string{server}, "signature_required": true,
		"request_nonce": proof.Nonce, "request": describe(target(request), request.Header, body),
		"response": describe(map[string]any{"status": response.StatusCode}, response.Header, answer)}, &seen)
	if err != nil || status != http.StatusOK {
		return "", errors.Join(fmt.Errorf("status %d is not signed by %s: %s", response.StatusCode, server, seen.Reason), err)
	}
	return string(answer), nil
}
