package config

// Env is what a configuration is read with.
type Env struct {
	// Lookup finds an environment variable. nil: os.LookupEnv.
	Lookup func(name string) (value string, found bool)
	// ReadFile reads a file. nil: from disk, at most 16 MiB.
	ReadFile func(name string) ([]byte, error)
}

type document struct{}
