package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed-a98b2d25/fovea/fleet"
)

// A daemon without a broker of its own, and an operator who asks it how it is.
func Example() {
	log := slog.New(slog.DiscardHandler)
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	broker, err := fleet.NewBroker("127.0.0.1:0", filepath.Join(dir, "mqtt-password"), log)
	if err != nil {
		panic(err)
	}
	if err := broker.Start(); err != nil {
		panic(err)
	}
	defer broker.Stop()

	cfg := fleet.Config{Device: "gate-1", Broker: broker.URL(), PasswordFile: broker.PasswordFile()}
	device, err := fleet.New(cfg, fleet.NewQueue(fleet.QueueLimit), fleet.NewCommandLog(), log)
	if err != nil {
		panic(err)
	}
	err = device.Handle(fleet.VerbSpec{
		Verb: fleet.VerbHealth, Repeatable: true,
		Handler: func(context.Context, fleet.Command, func(float64)) (any, error) {
			return fleet.Health{Health: fleet.HealthOK, Version: "1.0"}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	operator, err := fleet.NewOperator(fleet.Config{Broker: broker.URL(), PasswordFile: broker.PasswordFile()}, log)
	if err != nil {
		panic(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	var running sync.WaitGroup
	running.Go(func() { device.Run(ctx) })
	running.Go(func() { operator.Run(ctx) })
	answer, err := operator.Do(ctx, fleet.Request{Device: "gate-1", Verb: fleet.VerbHealth})
	if err != nil {
		panic(err)
	}
	var health fleet.Health
	if err := json.Unmarshal(answer.Result, &health); err != nil {
		panic(err)
	}
	fmt.Println(answer.State, health.Health, health.Version)
	cancel()
	running.Wait()
	// Output: successful ok 1.0
}
