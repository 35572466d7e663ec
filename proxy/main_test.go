package proxy_test

import (
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }
