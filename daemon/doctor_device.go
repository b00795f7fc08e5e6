package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/model"
)

// What the doctor sees of the device itself: user and groups, clock, disk, files, GPU.

// serviceUser is what the packages run the daemon as.
const serviceUser = "fovea"

// user says whose rights are tried, and whether they reach the cameras' device files.
func (d *diagnosis) user(c *Config) {
	me, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	_, noService := user.Lookup(serviceUser)
	switch {
	case err != nil:
		d.warn("user", "run it as a user of this system, as root or as "+serviceUser, "this user has no name here: %v", err)
	case me.Uid == "0" && noService == nil:
		d.warn("user", "sudo -u fovea fovea doctor", "this is root, who may do everything; the daemon runs as %s", serviceUser)
	default:
		d.ok("user", "%s, groups %s", me.Username, groupNames(me))
	}
	for _, camera := range c.Cameras {
		if capture.KindOf(camera.Source) == capture.KindDevice {
			d.device("camera "+camera.ID, camera.Source, "video")
		}
	}
}

// device says whether a device file may be opened for reading and writing.
func (d *diagnosis) device(part, path, group string) {
	err := unix.Access(path, unix.R_OK|unix.W_OK)
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.fault(part, fmt.Sprintf("add the user to the group %s: usermod -aG %s USER, then log in again; for the service SupplementaryGroups=%s", ownerGroup(path, group), ownerGroup(path, group), ownerGroup(path, group)),
			"%s may not be opened by this user", path)
	case errors.Is(err, fs.ErrNotExist):
		d.fault(part, "plug it in, or correct the source; v4l2-ctl --list-devices shows what is there", "%s is not there", path)
	case err != nil:
		d.fault(part, "", "%s: %v", path, err)
	}
}

// ownerGroup is the group that a file belongs to; fallback where that has no name.
func ownerGroup(path, fallback string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return fallback
	}
	group, err := user.LookupGroupId(strconv.Itoa(int(st.Gid)))
	if err != nil || group.Name == "root" {
		return fallback
	}
	return group.Name
}

func groupNames(u *user.User) string {
	ids, err := os.Getgroups()
	if err != nil {
		return "unknown"
	}
	var names []string
	for _, id := range append(ids, os.Getgid()) {
		name := strconv.Itoa(id)
		if g, err := user.LookupGroupId(name); err == nil {
			name = g.Name
		}
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// built is a time before which no clock can be right: the first release was later.
var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (d *diagnosis) clock(now time.Time, synchronised bool) {
	if now.Before(built) {
		d.fault("clock", "set it, and have it kept: timedatectl set-ntp true", "it says %s, which is past: certificates will not be believed", now.Format(time.DateTime))
	} else if !synchronised {
		d.warn("clock", "timedatectl set-ntp true, or look at chronyc tracking", "not synchronised: times in samples and topics are marked so")
	} else {
		d.ok("clock", "synchronised, %s", now.Format("MST"))
	}
}

// fileSystems that a database does not do well on, by the number that statfs(2) gives.
var fileSystems = map[int64]string{
	unix.TMPFS_MAGIC:       "tmpfs, which is lost when the machine stops",
	unix.NFS_SUPER_MAGIC:   "NFS, where locks and mapped files are not to be relied on",
	unix.MSDOS_SUPER_MAGIC: "FAT, which knows neither owners nor whole renames",
	unix.EXFAT_SUPER_MAGIC: "exFAT, which knows neither owners nor whole renames",
}

// littleSpace is what a device should have free for a new model beside the old ones.
const littleSpace = 1 << 30

func (d *diagnosis) stateFolder(dir string) {
	const part = "state folder"
	var s unix.Statfs_t
	info, err := os.Stat(dir)
	if err == nil {
		err = unix.Statfs(dir, &s)
	}
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(dir)
		for {
			if _, err := os.Stat(parent); err == nil || parent == "/" {
				break
			}
			parent = filepath.Dir(parent)
		}
		if unix.Access(parent, unix.W_OK) != nil {
			d.fault(part, "make it for this user, or name another in state_dir", "%s is not there, and this user may not make it in %s", dir, parent)
		} else {
			d.ok(part, "%s is made at the first start", dir)
		}
		return
	}
	if err != nil {
		d.fault(part, "run fovea doctor as the daemon's user or as root; dmesg tells if it is the disk that fails", "%s: %v", dir, err)
		return
	}
	if !info.IsDir() {
		d.fault(part, "name a folder in state_dir", "%s is no folder", dir)
		return
	}
	healthy := true
	if unix.Access(dir, unix.W_OK|unix.X_OK) != nil {
		healthy = false
		d.fault(part, "give it to the daemon's user: chown -R USER "+dir, "%s cannot be written by this user", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		healthy = false
		d.warn(part, "chmod 700 "+dir, "%s can be entered by others (mode %03o), and it holds pictures", dir, info.Mode().Perm())
	}
	if other := notOwned(dir, info); other != "" {
		healthy = false
		d.fault(part, "chown -R --reference="+dir+" "+dir, "%s belongs to another user than its folder: the daemon may not read it", other)
	}
	if s.Flags&unix.ST_RDONLY != 0 {
		healthy = false
		d.fault("disk", "look at dmesg for why; mount -o remount,rw, fsck, or another disk", "the file system of %s is read-only", dir)
	}
	if name, odd := fileSystems[int64(s.Type)]; odd {
		healthy = false
		d.warn("disk", "put state_dir on ext4, xfs or btrfs", "%s lies on %s", dir, name)
	}
	if free := int64(s.Bavail) * s.Bsize; free < littleSpace {
		healthy = false
		d.warn("disk", "free some, or lower samples.megabytes", "%.0f MB are free for %s", float64(free)/1e6, dir)
	}
	if healthy {
		d.ok(part, "%s, %.1f GB free", dir, float64(int64(s.Bavail)*s.Bsize)/1e9)
	}
}

// notOwned returns a file in dir, two levels deep, that has another owner than dir; "" for none.
func notOwned(dir string, info os.FileInfo) (other string) {
	owner := info.Sys().(*syscall.Stat_t).Uid
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if own, err := e.Info(); err == nil && own.Sys().(*syscall.Stat_t).Uid != owner {
			other = path
			return fs.SkipAll
		}
		if e.IsDir() && strings.Count(strings.TrimPrefix(path, dir), "/") >= 2 {
			return fs.SkipDir
		}
		return nil
	})
	return other
}

// secrets looks at the files with passwords and keys: there, readable by this user, by no other.
func (d *diagnosis) secrets(c *Config) {
	files := map[string]string{"mqtt.password_file": c.MQTT.PasswordFile, "mqtt.key_file": c.MQTT.KeyFile, "web.tls_key": c.Web.TLSKey}
	for i, camera := range c.Cameras {
		files[fmt.Sprintf("cameras[%d].password_file", i)] = camera.PasswordFile
	}
	for field, file := range files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			d.fault(field, "put it there, or correct "+field+"; for the service: LoadCredential= (docs/systemd.md)", "%v", err)
			continue
		}
		info, err := os.Stat(file)
		switch {
		case len(text) == 0:
			d.fault(field, "write the secret into it", "%s is empty", file)
		case err == nil && info.Mode().Perm()&0o007 != 0:
			d.warn(field, "chmod o-rwx "+file, "%s can be read by everybody (mode %03o)", file, info.Mode().Perm())
		default:
			d.ok(field, "%s", file)
		}
	}
}

// gpu looks for NVIDIA's device files and whether this user may open them.
func (d *diagnosis) gpu(c *Config) {
	wanted := c.Model.Backend == model.BackendXLACUDA || c.Model.Backend == model.BackendONNXCUDA
	var found []string
	for _, pattern := range []string{"/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvmap", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0/*"} {
		files, _ := filepath.Glob(pattern) // the patterns are well formed
		found = append(found, files...)
	}
	switch driver := firstLine("/proc/driver/nvidia/version"); {
	case len(found) == 0 && wanted:
		d.fault("GPU", "install the driver (nvidia-smi must work), or set model.backend to auto", "model.backend is %s, and this machine shows no NVIDIA device", c.Model.Backend)
		return
	case len(found) == 0:
		d.ok("GPU", "none; the processor computes")
		return
	default:
		d.ok("GPU", "%s %s", strings.Join(found, " "), driver)
	}
	for _, file := range found {
		d.device("GPU", file, "render")
	}
}
