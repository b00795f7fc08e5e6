package store

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// State is state.db: small, and on space of its own, so that it goes on where the disk is full.
type State struct {
	Models   *Models
	Queue    *Queue
	Commands *Commands

	db *bbolt.DB
}

// stateReserve holds the queue (queueBytes), a thousand commands and verdicts, and bbolt's copies of pages.
const stateReserve = 12 << 20

var stateLayout = layout{
	name:    "state.db",
	buckets: []string{"models", "verdicts", "queue", "commands", "settings"},
	reserve: stateReserve,
	grow:    1 << 20,
	options: bbolt.Options{InitialMmapSize: 2 * stateReserve, FreelistType: bbolt.FreelistMapType},
}

var (
	modelsBucket   = []byte("models")
	verdictsBucket = []byte("verdicts")
	queueBucket    = []byte("queue")
	commandsBucket = []byte("commands")
	settingsBucket = []byte("settings")
)

func openState(ctx context.Context, dir string, o Options) (*State, []string, error) {
	var alarms []string
	alarm := func(sentence string) {
		if sentence != "" {
			alarms = append(alarms, sentence)
		}
	}
	db, began, said, err := stateLayout.open(ctx, dir, o)
	alarm(said)
	if err != nil {
		return nil, alarms, err
	}
	s := &State{db: db}
	s.Models = &Models{db: db, dir: filepath.Join(dir, "models")}
	modelAlarms, earlier, err := s.Models.open(began)
	for _, m := range modelAlarms {
		alarm(m)
	}
	if err == nil {
		s.Commands = &Commands{db: db}
		// Receipts without a state.db that knows them: there was one.
		err = s.Commands.open(began && (earlier || said != ""))
	}
	if err == nil {
		s.Queue, err = openQueue(db)
	}
	if err != nil {
		db.Close()
		return nil, alarms, fmt.Errorf("%s: %w", stateLayout.name, err)
	}
	return s, alarms, nil
}

func (s *State) close() error { return s.db.Close() }

// Setting reads a small value into v, which is as for json.Unmarshal, and says whether there is one.
func (s *State) Setting(key string, v any) (found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		found, err = getJSON(tx.Bucket(settingsBucket), []byte(key), v)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("setting %s: %w", key, err)
	}
	return found, nil
}

// SetSetting keeps a small value, written as JSON, durably.
func (s *State) SetSetting(key string, v any) error {
	if err := s.db.Update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(settingsBucket), []byte(key), v) }); err != nil {
		return fmt.Errorf("setting %s: %w", key, err)
	}
	return nil
}

// Commands remembers remote commands, opaque to it, so that none runs twice. It is fleet's CommandLog.
type Commands struct {
	db   *bbolt.DB
	lost time.Time
}

// lostKey holds when an earlier memory was lost.
var lostKey = []byte("commands.lost_at")

func (c *Commands) open(lost bool) error {
	if lost {
		c.lost = time.Now().UTC()
		return c.db.Update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(settingsBucket), lostKey, c.lost) })
	}
	return c.db.View(func(tx *bbolt.Tx) error {
		_, err := getJSON(tx.Bucket(settingsBucket), lostKey, &c.lost)
		return err
	})
}

// Load returns all records, in any order.
func (c *Commands) Load() (records [][]byte, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(commandsBucket).ForEach(func(k, v []byte) error {
			record, err := unseal(k, v)
			if err == nil {
				records = append(records, append([]byte{}, record...))
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("remembered commands: %w", err)
	}
	return records, nil
}

// Save keeps a record durably, in place of one with the same id.
func (c *Commands) Save(id string, record []byte) error {
	key := []byte(id)
	if err := c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(commandsBucket).Put(key, seal(key, record)) }); err != nil {
		return fmt.Errorf("remember command %s: %w", id, err)
	}
	return nil
}

// Forget removes the records with these ids; unknown ones are no error.
func (c *Commands) Forget(ids []string) error {
	err := c.db.Update(func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(commandsBucket).Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget commands: %w", err)
	}
	return nil
}

// LostAt is when an earlier memory was lost and this one began empty; zero if that never happened.
func (c *Commands) LostAt() time.Time { return c.lost }
