package ask

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// awsSettings are credentials of nobody, and nothing of this machine.
func awsSettings(t *testing.T) {
	for name, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"AWS_SESSION_TOKEN": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_LAMBDA": "",
	} {
		t.Setenv(name, v)
	}
}

func TestFunctionsAreInvoked(t *testing.T) {
	awsSettings(t)
	const arn = "arn:aws:lambda:eu-west-1:123456789012:function:my-authorizer:live"
	for _, c := range []struct{ function, region, path, scope string }{
		{"my-authorizer", "us-east-1", "/2015-03-31/functions/my-authorizer/invocations", "/us-east-1/lambda/aws4_request"},
		{arn, "", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Amy-authorizer%3Alive/invocations", "/eu-west-1/lambda/aws4_request"},
		{arn, "us-east-2", "", "/us-east-2/lambda/aws4_request"},
	} {
		var got *http.Request
		var body []byte
		url, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
			_, _ = io.WriteString(w, `{"isAuthorized":true}`)
		})
		l := Lambda{Client: client, Function: c.function, Region: c.region, Endpoint: url}
		reply, err := l.Invoke(t.Context(), []byte(`{"type":"TOKEN"}`))
		if err != nil || string(reply) != `{"isAuthorized":true}` {
			t.Fatalf("%s: %s, %v", c.function, reply, err)
		}
		kind := got.Header.Get("X-Amz-Invocation-Type")
		if got.Method != "POST" || c.path != "" && got.RequestURI != c.path || string(body) != `{"type":"TOKEN"}` || kind != "" && kind != "RequestResponse" ||
			!strings.Contains(got.Header.Get("Authorization"), c.scope) {
			t.Errorf("%s: %s %s %s %v", c.function, got.Method, got.RequestURI, body, got.Header)
		}
	}
}

func TestFunctionsThatFail(t *testing.T) {
	awsSettings(t)
	for _, c := range []struct {
		name   string
		status int
		header string // X-Amz-Function-Error, or X-Amzn-Errortype
		body   string
		calls  int64
		want   string
	}{
		{"refuses", 200, "Unhandled", `{"errorMessage":"Unauthorized","errorType":"Error","trace":[]}`, 1, "the function says Unauthorized"},
		{"refuses, in other words", 200, "Unhandled", `{"errorMessage":"Unauthorized: SECRET","errorType":"Error"}`, 1, `the function fails: "Unhandled" of type "Error", see its own log`},
		{"fails with what is no object", 200, "Unhandled", `SECRET`, 1, `the function fails: "Unhandled" of type "", see its own log`},
		{"is not there", 404, "ResourceNotFoundException", `{"Message":"Function not found","Type":"User"}`, 1, "the function cannot be called: ResourceNotFoundException: Function not found"},
		{"may not be called", 403, "AccessDeniedException", `{"Message":"not authorized to perform: lambda:InvokeFunction"}`, 1, "the function cannot be called: AccessDeniedException: not authorized to perform: lambda:InvokeFunction"},
		{"fails at AWS", 500, "ServiceException", `{"Message":"internal"}`, 2, "the function cannot be called: ServiceException: internal"},
		{"is throttled", 429, "TooManyRequestsException", `{"message":"Rate exceeded"}`, 2, "the function cannot be called: TooManyRequestsException: Rate exceeded"},
		{"queues", 202, "", ``, 1, "the call of the function has status 202"},
		{"redirects", 307, "", ``, 1, ""},
	} {
		var calls atomic.Int64
		url, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.Header().Set("Location", "/other")
			if c.status == 200 {
				w.Header().Set("X-Amz-Function-Error", c.header)
			} else if c.header != "" {
				w.Header().Set("X-Amzn-Errortype", c.header)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		l := Lambda{Client: client, Function: "f", Region: "us-east-1", Endpoint: url}
		reply, err := l.Invoke(t.Context(), []byte(`{}`))
		if reply != nil || err == nil || calls.Load() != c.calls || c.want != "" && err.Error() != c.want {
			t.Errorf("%s: %s, %v, %d calls", c.name, reply, err, calls.Load())
		}
	}
}

func TestFunctionsThatNeverEnd(t *testing.T) {
	awsSettings(t)
	url, client := serve(t, silent)
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if _, err := (&Lambda{Client: client, Function: "f", Region: "us-east-1", Endpoint: url}).Invoke(ctx, nil); err == nil {
		t.Error("no error")
	}
	url, client = serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 32<<10))
		}
	})
	_, err := (&Lambda{Client: client, Function: "f", Region: "us-east-1", Endpoint: url}).Invoke(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), errLong.Error()) {
		t.Error(err)
	}
}

func TestWithoutARegionNothingIsCalled(t *testing.T) {
	awsSettings(t)
	_, err := (&Lambda{Client: http.DefaultClient, Function: "f"}).Invoke(t.Context(), nil)
	if err == nil || err.Error() != "no AWS region is given, add region to the authenticator" {
		t.Error(err)
	}
}

func TestPartsOfARNs(t *testing.T) {
	for in, want := range map[string]string{
		"arn:aws:lambda:us-east-1:123456789012:function:f":   "us-east-1 123456789012",
		"arn:aws:lambda:us-east-1:123456789012:function:f:1": "us-east-1 123456789012",
		"123456789012:function:f":                            " ",
		"f":                                                  " ",
		"":                                                   " ",
	} {
		if got := fmt.Sprint(ARNRegion(in), " ", ARNAccount(in)); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}
