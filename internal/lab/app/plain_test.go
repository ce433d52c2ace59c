package app

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"testing"
)

func TestPlainKeepsSessions(t *testing.T) {
	p, err := ListenPlain(t.Context(), "s1", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2", "3"} {
		client := http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + p.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		cookies := resp.Cookies()
		if len(cookies) != 1 || cookies[0].Name != SessionCookie || cookies[0].Value != want || resp.Header.Get(ServerHeader) != "s1" || resp.Header.Get(UserHeader) == "" {
			t.Errorf("want answer %s: %v", want, resp.Header)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", SessionCookie+"=x")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%s to a session that is none", resp.Status)
	}
}
