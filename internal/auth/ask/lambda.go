package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// Lambda is an AWS Lambda function. Credentials are found where AWS's own tools find
// them: the environment, the shared files, the role of the machine. That is looked up
// with the first call.
type Lambda struct {
	Client   *http.Client
	Function string // name or ARN
	Region   string // empty: that of the ARN, else of the environment
	Endpoint string // empty: AWS's own

	mu     sync.Mutex
	client *lambda.Client
}

// lambdaAttempts is how often a call is made, all within one time limit: a kept
// connection that was closed meanwhile, or a throttled call, gets a second one.
const lambdaAttempts = 2

// ErrUnauthorized is what a function says by failing with the very message
// Unauthorized: API Gateway answers 401 to that.
var ErrUnauthorized = errors.New("the function says Unauthorized")

// Invoke calls the function and waits for its reply. An error other than
// ErrUnauthorized says that it cannot be told; nothing of the event is in it.
func (l *Lambda) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	client, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &l.Function, Payload: event})
	switch {
	case err != nil:
		return nil, fmt.Errorf("the function cannot be called: %w", cause(short(err)))
	case out.FunctionError != nil:
		return nil, functionError(*out.FunctionError, out.Payload)
	case out.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the call of the function has status %d", out.StatusCode)
	}
	return out.Payload, nil
}

// short is what of an error of the SDK helps an operator: the code and text of the
// service, without request ids and the wrappings of each layer.
func short(err error) error {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return fmt.Errorf("%s: %s", e.ErrorCode(), e.ErrorMessage())
	}
	return err
}

// functionError tells a function that refuses from one that fails.
func functionError(kind string, payload []byte) error {
	var e struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	_ = json.Unmarshal(payload, &e) // what is no error object has no message
	if e.Message == "Unauthorized" {
		return ErrUnauthorized
	}
	// The message is the function's own, and may quote the token.
	return fmt.Errorf("the function fails: %q of type %q, see its own log", clip(kind), clip(e.Type))
}

// clip is s cut to a length that a log line can hold.
func clip(s string) string { return s[:min(len(s), 100)] }

func (l *Lambda) connect(ctx context.Context) (*lambda.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		return l.client, nil
	}
	region := l.Region
	if region == "" {
		region = ARNRegion(l.Function)
	}
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithLogger(logging.Nop{})}
	if region != "" {
		options = append(options, awsconfig.WithRegion(region))
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("the AWS settings of this machine cannot be read: %w", err)
	}
	if c.Region == "" {
		return nil, errors.New("no AWS region is given, add region to the authenticator")
	}
	l.client = lambda.NewFromConfig(c, func(o *lambda.Options) {
		o.HTTPClient = l.Client
		o.RetryMaxAttempts = lambdaAttempts
		if l.Endpoint != "" {
			o.BaseEndpoint = aws.String(l.Endpoint)
		}
	})
	return l.client, nil
}

// ARNRegion returns the region that is in the ARN of a function, empty for a name.
func ARNRegion(function string) string { return arnPart(function, 3) }

// ARNAccount returns the account that is in the ARN of a function, empty for a name.
func ARNAccount(function string) string { return arnPart(function, 4) }

func arnPart(function string, i int) string {
	if parts := strings.SplitN(function, ":", 7); len(parts) == 7 && parts[0] == "arn" {
		return parts[i]
	}
	return ""
}
