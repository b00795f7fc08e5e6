# Runs under the systemd that boot.sh starts. Each step prints what it saw; the first that fails ends it.
set -u
log=/mnt/out/fovea.log

step() { echo "== $1"; }
fail() {
	echo "FAILED: $*"
	systemctl status --no-pager --full fovea 2>&1 | head -30
	echo "-- log of the service"
	tail -60 $log 2>/dev/null
	exit 1
}
# within SECONDS COMMAND...: waits for it to succeed
within() {
	local limit=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$limit" ] || return 1
		sleep 0.1
	done
}
show() { systemctl show -P "$1" fovea; }
active() { [ "$(show ActiveState)" = active ]; }
get() { # the page, on loopback
	exec 9<>/dev/tcp/127.0.0.1/8080 && printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&9 && cat <&9
	exec 9>&-
}
says() { get /api/status | grep -qE "$1"; }
milliseconds() { date +%s%3N; }
another() { [ "$(show MainPID)" != "$1" ] && [ "$(show MainPID)" != 0 ] && active; }
of_fovea() { ps -u fovea -o pid=,args= 2>/dev/null; }
files() { # what an installation may leave
	find /etc /usr/bin /usr/lib/fovea /usr/lib/systemd /usr/lib/sysusers.d /usr/lib/tmpfiles.d /usr/share/fovea /usr/share/doc \
		/usr/share/man/man1 /usr/src /var/lib /var/cache /run -not -path '/var/lib/dpkg/*' -not -path '/run/systemd/*' \
		-not -path '/run/credentials*' -not -path '/var/cache/man/*' -not -path '/var/cache/ldconfig/*' -not -name '*-' \
		-not -path '/var/lib/systemd/*' -not -path '/run/log/*' -not -path '/run/mosquitto*' 2>/dev/null | sort
	cat /etc/passwd /etc/group
}

files >/tmp/before
mkdir -p /etc/systemd/system/fovea.service.d
cat >/etc/systemd/system/fovea.service.d/test.conf <<END
[Service]
StandardError=append:$log
END

step "install: the service runs with nothing configured"
dpkg -i /mnt/in/old/*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; fail "dpkg -i"; }
within 150 active || fail "not active after the installation"
within 10 says '"missing":\["No camera' || fail "the page does not say what is missing"
[ "$(systemctl is-enabled fovea)" = enabled ] || fail "not enabled"
[ "$(stat -c '%a %U' /var/lib/fovea)" = "700 fovea" ] || fail "state folder: $(stat -c '%a %U' /var/lib/fovea)"
[ "$(stat -c '%a %U:%G' /etc/fovea/fovea.yaml)" = "640 root:fovea" ] || fail "configuration: $(stat -c '%a %U:%G' /etc/fovea/fovea.yaml)"
for fact in 'CapEff:	0000000000000000' 'CapBnd:	0000000000000000' 'NoNewPrivs:	1' 'Seccomp:	2'; do
	grep -q "$fact" "/proc/$(show MainPID)/status" || fail "the process has not: $fact"
done

step "configured: camera, XLA, an MQTT broker, a credential, all inside the sandbox"
install -m 644 /mnt/in/pjrt_cpu.so /mnt/in/pjrt_cpu.so.sha256 /usr/lib/fovea/
cp -r /mnt/in/model /mnt/in/pictures /srv/
mkdir -m 700 /etc/fovea/secrets
echo "the broker's word" >/etc/fovea/secrets/mqtt
mkdir -p /run/mosquitto-test
mosquitto_passwd -b -c /run/mosquitto-test/passwd fovea "the broker's word" 2>/dev/null
printf 'listener 1884 127.0.0.1\npassword_file /run/mosquitto-test/passwd\n' >/run/mosquitto-test/conf
chown -R mosquitto /run/mosquitto-test 2>/dev/null
mosquitto -c /run/mosquitto-test/conf >/run/mosquitto-test/log 2>&1 &
broker=$!
cat >/etc/fovea/fovea.yaml <<END
device: {id: tried}
model: {dir: /srv/model, backend: xla:cpu}
cameras:
  - {id: pictures, source: /srv/pictures, fps: 5, loop: true}
mqtt: {url: "mqtt://127.0.0.1:1884", username: fovea, password_file: broker-password}
adapt: {auto: false, gate: {latency: 100}}
END
cat >>/etc/systemd/system/fovea.service.d/test.conf <<END
WatchdogSec=3
LoadCredential=broker-password:/etc/fovea/secrets/mqtt
END
systemctl daemon-reload
began=$(milliseconds)
systemctl restart fovea || fail "restart"
echo "READY after $(($(milliseconds) - began)) ms, model compiled"
within 30 says '"phase":"running".*"classified_total":[1-9]' || fail "no frame is classified: $(get /api/status)"
says '"backend":"xla:cpu"' || fail "not on XLA: $(get /api/status)"
health=$(timeout 20 mosquitto_sub -p 1884 -u fovea -P "the broker's word" -t 'fovea/tried/status' -C 1) || fail "nothing on MQTT: $(cat /run/mosquitto-test/log)"
echo "MQTT: $(echo "$health" | head -c 160)..."
synced=$(python3 -c 'import ctypes; b = ctypes.create_string_buffer(1024); print(str(ctypes.CDLL(None).adjtimex(b) != 5).lower())')
says "\"time_synced\":$synced" || fail "the clock is told wrong; adjtimex says synchronised: $synced"
[ "$(of_fovea | grep -c fovea-grab)" = 1 ] || fail "grabbers: $(of_fovea)"

step "an adaptation by a command, in a child inside the sandbox"
topic=fovea/tried/cmd/adapt/by-hand
fovea samples import /mnt/in/samples | grep '^146 taken in, 46 known already, 0 left out' || fail "samples import" # each view without a thing is one picture
mosquitto_pub -p 1884 -u fovea -P "the broker's word" -q 1 -t $topic -m '{"force":true}'
trainer() { pgrep -u fovea -f 'fovea adapt --pack'; }
within 60 trainer || fail "no child: $(of_fovea)"
child=$(trainer)
policy=$(sed 's/.*) //' "/proc/$child/stat" | cut -d' ' -f39)
[ "$policy" = 5 ] || fail "the child's scheduling policy is $policy, SCHED_IDLE is 5"
cmp -s "/proc/$child/cgroup" "/proc/$(show MainPID)/cgroup" || fail "the child is in another cgroup"
for fact in 'CapEff:	0000000000000000' 'NoNewPrivs:	1' 'Seccomp:	2'; do
	grep -q "$fact" "/proc/$child/status" || fail "the child has not: $fact"
done
within 60 grep -q pjrt_cpu.so "/proc/$child/maps" || fail "the child did not load the plugin"
answered() { verdict=$(timeout 5 mosquitto_sub -p 1884 -u fovea -P "the broker's word" -t $topic/state -C 1 | grep -E '"(successful|failed)"'); }
within 500 answered || fail "no answer to the command: $(of_fovea)"
echo "MQTT: $(echo "$verdict" | head -c 300)"
echo "$verdict" | grep -qE '"verdict":"(promoted|rejected)"' || fail "no verdict"
fovea models rollback # so that no probation goes on
[ ! -e /var/lib/fovea/work ] || fail "the work folder is still there"
within 30 says '"phase":"running".*"classified_total":[1-9]' || fail "no frame after the adaptation"

sed -i 's/xla:cpu/go/' /etc/fovea/fovea.yaml # from here on starts need not compile
cp /etc/fovea/fovea.yaml /tmp/good.yaml

step "doctor: no fault, as root and as the daemon's user"
export CREDENTIALS_DIRECTORY=/run/credentials/fovea.service # as the daemon has it
as_fovea() { setpriv --reuid fovea --regid fovea --init-groups "$@"; }
fovea doctor --quick >/tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
grep -q 'sudo -u fovea fovea doctor' /tmp/doctor || fail "doctor does not say that this is root: $(cat /tmp/doctor)"
grep -q 'camera pictures .*read by pictures' /tmp/doctor || fail "doctor does not say what reads the camera: $(cat /tmp/doctor)"
as_fovea fovea doctor --quick --json >/tmp/doctor || fail "doctor: $(cat /tmp/doctor)"

step "upgrade: what was configured and learnt stays"
learnt() { # samples, versions and their record, as they are kept
	systemctl stop fovea
	for camera in camera0 camera1; do as_fovea fovea samples list --json --camera $camera | tr -d ' ' | grep -o '"matching":[0-9]*'; done
	as_fovea fovea models list --json | tr -d ' ' | grep -E '"(number|sha256|state|seq)":'
	as_fovea fovea models verify
	systemctl start fovea
}
learnt >/tmp/learnt
[ "$(grep -c '"matching":73' /tmp/learnt)" = 2 ] && grep -q '"number":0' /tmp/learnt || fail "not learnt: $(cat /tmp/learnt)"
echo kept >/var/lib/fovea/marker
pid=$(show MainPID)
dpkg -i --force-confdef --force-confold /mnt/in/new/*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; fail "upgrade"; }
within 150 another "$pid" || fail "the new version does not run"
[ "$(cat /var/lib/fovea/marker)" = kept ] && cmp -s /tmp/good.yaml /etc/fovea/fovea.yaml || fail "lost in the upgrade"
within 30 says '"phase":"running".*"classified_total":[1-9]' || fail "no frame after the upgrade"

learnt | diff /tmp/learnt - || fail "lost in the upgrade"

step "the older version again, then the newer one: nothing is lost"
for version in old new; do
	pid=$(show MainPID)
	dpkg -i --force-downgrade --force-confdef --force-confold /mnt/in/$version/*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; fail "dpkg -i $version"; }
	within 150 another "$pid" || fail "the $version version does not run"
	within 30 says '"phase":"running".*"classified_total":[1-9]' || fail "no frame with the $version version"
	learnt | diff /tmp/learnt - || fail "lost with the $version version"
done
[ "$(cat /var/lib/fovea/marker)" = kept ] && cmp -s /tmp/good.yaml /etc/fovea/fovea.yaml || fail "lost on the way back"
within 30 says '"phase":"running".*"classified_total":[1-9]' || fail "no frame on the way back"

step "reload: a bad configuration is refused and the old one goes on, a good one is taken"
pid=$(show MainPID)
sed -i 's/fps: 5/fsp: 5/' /etc/fovea/fovea.yaml
if systemctl reload fovea 2>/dev/null; then fail "the reload of a bad configuration did not fail"; fi
grep -q 'fovea.yaml:4:.*fsp: unknown key' $log || fail "the fault is not in the journal"
says '"phase":"running"' && [ "$(show MainPID)" = "$pid" ] && active || fail "the daemon did not go on"
sed 's/id: pictures/id: other/' /tmp/good.yaml >/etc/fovea/fovea.yaml
systemctl reload fovea || fail "reload"
within 20 says '"id":"other".*"phase":"running"' || fail "the new camera does not run: $(get /api/status)"
[ "$(show MainPID)" = "$pid" ] || fail "a reload started the daemon anew"

step "hung (SIGSTOP): the watchdog starts it again"
began=$(milliseconds)
kill -STOP "$pid"
within 150 another "$pid" || fail "not restarted"
echo "watchdog of 3 s: another process is ready after $(($(milliseconds) - began)) ms; restarts $(show NRestarts)"
within 30 says '"classified_total":[1-9]' || fail "no frame after the restart"

step "kill -9: started again"
pid=$(show MainPID)
began=$(milliseconds)
kill -9 "$pid"
within 150 another "$pid" || fail "not restarted"
echo "another process is ready after $(($(milliseconds) - began)) ms; restarts $(show NRestarts)"
within 30 says '"classified_total":[1-9]' || fail "no frame after the restart"
[ "$(of_fovea | grep -c fovea-grab)" = 1 ] || fail "grabbers: $(of_fovea)"

step "stop in less than 10 s, and nothing is left"
began=$(milliseconds)
systemctl stop fovea
took=$(($(milliseconds) - began))
echo "stopped in $took ms"
[ "$took" -lt 10000 ] || fail "the stop took $took ms"
[ "$(show Result)" = success ] || fail "result $(show Result)"
[ -z "$(of_fovea)" ] || fail "still there: $(of_fovea)"

step "bad configuration: not started again"
echo 'cameras: [{id: door}]' >/etc/fovea/fovea.yaml
if systemctl start fovea 2>/dev/null; then fail "started with a bad configuration"; fi
sleep 3
[ "$(show ExecMainStatus)" = 78 ] && [ "$(show ActiveState)" = failed ] && [ "$(show SubState)" = failed ] ||
	fail "status $(show ExecMainStatus), state $(show ActiveState) $(show SubState), restarts $(show NRestarts)"

step "devices: cameras may be opened, others not"
if grep -q ' video4linux$' /proc/devices; then
	mknod -m 660 /dev/video9 c 81 9 && chgrp video /dev/video9
	mknod -m 666 /dev/other c 10 200
	printf 'cameras:\n  - {id: video, source: /dev/video9}\n  - {id: other, source: /dev/other}\n' >/etc/fovea/fovea.yaml
	systemctl start fovea || fail "start"
	within 20 says 'video9 has no camera behind it' || fail "/dev/video9: $(get /api/status)"
	within 20 says 'dev/other (may not be opened|cannot be opened)' || fail "/dev/other: $(get /api/status)"
else
	echo "this kernel has no Video4Linux: not tried"
fi

step "remove: state and configuration stay"
dpkg -r fovea fovea-grab >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; fail "remove"; }
[ -z "$(of_fovea)" ] || fail "still there: $(of_fovea)"
[ "$(cat /var/lib/fovea/marker)" = kept ] && [ -f /etc/fovea/fovea.yaml ] || fail "remove took state or configuration"

step "purge: nothing is left"
kill $broker
rm -rf /etc/fovea/secrets /run/mosquitto-test /etc/systemd/system/fovea.service.d # made by this script
dpkg -P fovea fovea-grab >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; fail "purge"; }
files >/tmp/after
diff /tmp/before /tmp/after || fail "left behind (>) or taken away (<)"
