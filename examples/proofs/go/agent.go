package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// agent sends requests to the agent's proof socket.
var agent = http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
	return net.Dial("unix", strings.TrimPrefix(os.Getenv("COUNTERSIGN_PROOF_SOCKET"), "unix://"))
}}}

// ask asks the agent a question. An error is what the agent says of it, or why it refuses a message.
func ask(method string, question map[string]any, answer any) (status int, err error) {
	body, _ := json.Marshal(question)
	request, _ := http.NewRequest("POST", "http://agent/v1/"+method, bytes.NewReader(body))
	request.Header.Set("workload.spiffe.io", "true")
	response, err := agent.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusForbidden {
		message, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return 0, fmt.Errorf("the agent answers %s: %s", response.Status, message)
	}
	return response.StatusCode, json.NewDecoder(response.Body).Decode(answer)
}

// describe says what a message is, with the hash of its body instead of the body.
func describe(message map[string]any, header http.Header, body []byte) map[string]any {
	fields := [][2]string{}
	for name, values := range header {
		for _, value := range values {
			fields = append(fields, [2]string{name, value})
		}
	}
	message["headers"] = fields
	if len(body) > 0 {
		hash := sha256.Sum256(body)
		message["body_sha256"] = base64.StdEncoding.EncodeToString(hash[:])
	}
	return message
}

// target describes a request line. An absent query is not an empty one.
func target(request *http.Request) map[string]any {
	message := map[string]any{"method": request.Method, "path": request.URL.EscapedPath()}
	if request.URL.RawQuery != "" || request.URL.ForceQuery {
		message["query"] = request.URL.RawQuery
	}
	return message
}
