// Command oracle says what go-spiffe makes of SPIFFE IDs, chains and tokens: one JSON object a line in, one out.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// question has one of ID, Chain and Token.
type question struct {
	// ID is a text. It is null in the other kinds.
	ID *string `json:"id"`
	// Chain is leaf first, in ASN.1 DER; Anchors are those of TrustDomain.
	Chain   [][]byte `json:"chain"`
	Anchors [][]byte `json:"anchors"`
	// Token is validated for Audience by the JWK set of TrustDomain.
	Token       *string         `json:"token"`
	Audience    string          `json:"audience"`
	JWKS        json.RawMessage `json:"jwks"`
	TrustDomain string          `json:"trustDomain"`
}

// answer has the ID of what is accepted, or the error.
type answer struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<22)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for in.Scan() {
		var asked question
		said := answer{}
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if id, err := judge(asked); err != nil {
			said.Error = err.Error()
		} else {
			said.ID = id.String()
		}
		if err := encoder.Encode(said); err != nil {
			os.Exit(1)
		}
		out.Flush()
	}
}

func judge(asked question) (spiffeid.ID, error) {
	switch {
	case asked.ID != nil:
		return spiffeid.FromString(*asked.ID)
	case asked.Token != nil:
		return judgeToken(asked)
	default:
		return judgeChain(asked)
	}
}

func judgeChain(asked question) (spiffeid.ID, error) {
	trustDomain, err := spiffeid.TrustDomainFromString(asked.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	var anchors []*x509.Certificate
	for _, der := range asked.Anchors {
		anchor, err := x509.ParseCertificate(der)
		if err != nil {
			return spiffeid.ID{}, err
		}
		anchors = append(anchors, anchor)
	}
	id, _, err := x509svid.ParseAndVerify(asked.Chain, x509bundle.FromX509Authorities(trustDomain, anchors))
	return id, err
}

func judgeToken(asked question) (spiffeid.ID, error) {
	trustDomain, err := spiffeid.TrustDomainFromString(asked.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	bundle, err := jwtbundle.Parse(trustDomain, asked.JWKS)
	if err != nil {
		return spiffeid.ID{}, err
	}
	svid, err := jwtsvid.ParseAndValidate(*asked.Token, bundle, []string{asked.Audience})
	if err != nil {
		return spiffeid.ID{}, err
	}
	return svid.ID, nil
}
