"""Commands that try to get out of the sandbox, and a world around it that notices if one does."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kits.trees import Tree, tree_in

ABSTRACT = f"mentra-test-world-{os.getpid()}"


@dataclass
class World:
    """What is around a workspace: files with `token`, services, a process. None of it may be reached."""

    workspace: Path
    outside: Path
    home: Path
    ours: Path
    token: str
    victim: subprocess.Popen[bytes]
    services: list[socket.socket]
    port: int
    shared: int
    """The id of a segment of shared memory."""
    before: dict[Path, Tree] = field(default_factory=dict)

    def remember(self) -> None:
        self.before = {top: tree_in(top) for top in (self.outside, self.home, self.workspace)}

    def harm(self) -> list[str]:
        """Return what was done to it, as far as it shows."""
        found = [f"{top} was changed" for top, tree in self.before.items() if tree_in(top) != tree]
        if self.victim.poll() is not None:
            found.append("the process outside was killed")
        elif psutil.Process(self.victim.pid).status() not in (psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING):
            found.append("the process outside was stopped")
        for service in self.services:
            try:
                service.accept() if service.type == socket.SOCK_STREAM else service.recv(1)
                found.append(f"{service.getsockname()} was reached")
            except BlockingIOError:
                continue
        return found


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Make a world in an empty folder."""
    workspace, outside, home, ours = (folder / name for name in ("workspace", "outside", "me", "mentra"))
    token = f"PRIVATE{secrets.token_hex(8)}"
    for path in (
        *(
            outside / "file",
            outside / "run.sh",
            home / ".bashrc",
            home / ".ssh" / "id_rsa",
            home / ".aws" / "credentials",
        ),
        *(ours / "state.sqlite", workspace / ".env", workspace / "deep" / ".ssh" / "id_rsa", workspace / "server.key"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{token}\n")
    (workspace / "data.csv").write_text("a,b\n1,2\n")
    (workspace / "link_file").symlink_to(outside / "file")
    (workspace / "link_folder").symlink_to(outside)
    with ExitStack() as open_:
        services = [open_.enter_context(each) for each in _on_one_port()]
        for family, kind, address in (
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + ABSTRACT),
            (socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{ABSTRACT}-datagram"),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(outside / "door")),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(workspace / "door")),
        ):
            service = open_.enter_context(socket.socket(family, kind))
            service.bind(address)
            services.append(service)
        for service in services:
            if service.type == socket.SOCK_STREAM:
                service.listen()
            service.setblocking(False)
        (outside / "door").unlink()  # the listener itself tells whether it was reached
        (outside / "door").symlink_to(workspace / "door")
        victim = subprocess.Popen(["sleep", "600"], env={"SECRET_KEY": token})
        open_.callback(victim.wait)
        open_.callback(victim.kill)
        shared = open_.enter_context(_shared_memory(token))
        in_memory = Path("/dev/shm") / ABSTRACT
        in_memory.write_text(token)
        open_.callback(in_memory.unlink)
        port = services[0].getsockname()[1]
        made = World(workspace, outside, home, ours, token, victim, services, port, shared)
        (workspace / "door").unlink()
        made.remember()
        yield made


def _on_one_port() -> list[socket.socket]:
    """Return a socket of TCP and one of UDP with the same port, which no other program has for either."""
    while True:
        made = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        try:
            made[0].bind(("127.0.0.1", 0))
            made[1].bind(made[0].getsockname())
        except OSError as error:
            for each in made:
                each.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return made


@contextmanager
def _shared_memory(token: str) -> Iterator[int]:
    """Make a segment of shared memory with the token in it, open to all; its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    made = libc.shmget(0, 4096, 0o1666)
    place = ctypes.c_void_p(libc.shmat(made, None, 0))
    ctypes.memmove(place, token.encode(), len(token))
    try:
        yield made
    finally:
        libc.shmdt(place)
        libc.shmctl(made, 0, None)


def python(code: str) -> str:
    return f"python3 -c {shlex.quote(code)}"


def attacks(world: World, numbers: dict[str, int]) -> list[str]:
    """Return the hostile commands. `numbers` are those of system calls."""
    return [
        *_paths(world),
        *_links(world),
        *_processes(world),
        *_network(world),
        *_devices(),
        *_kernel(world),
        python(_CALLS.format(numbers=numbers)),
    ]


def _paths(world: World) -> Iterator[str]:
    """Each way to a file, with each thing to do to it."""
    targets = (
        world.outside / "file",
        world.home / ".ssh" / "id_rsa",
        world.ours / "state.sqlite",
        world.home / ".bashrc",
    )
    hidden = (world.workspace / ".env", world.workspace / "deep/.ssh/id_rsa", world.workspace / "server.key")
    up = "/".join([".."] * 12)
    for target in (*targets, *hidden):
        ways = [str(target), f"{up}{target}", f"/proc/self/root{target}", f"/proc/1/root{target}", f"//{target}"]
        ways += [f"/proc/self/cwd/{up}{target}", f"/tmp/{up}{target}", f"/usr/..{target}", f"/proc/$PPID/root{target}"]
        for way in ways:
            yield f"cat {way}"
            yield f"echo mine >{way}"
            yield f"echo mine >>{way}"
            yield f"rm -f {way}"
            yield f"mv {way} here; cat here"
            yield f"cp {way} here; cat here"
            yield f"chmod 777 {way}"
            yield f"ln {way} hard; cat hard"
            yield f"ln -s {way} soft; cat soft; echo mine >soft"


def _links(world: World) -> Iterator[str]:
    yield "cat link_file; echo mine >link_file; rm -rf link_folder/*; cat link_folder/file"
    yield f"rm link_folder; mkdir link_folder; ln -s {world.outside} again; echo mine >again/file; cat again/file"
    yield "cp -rL . /tmp/all; cat /tmp/all/.env /tmp/all/link_file"
    yield "tar cf - . | cat; tar chf - link_folder | cat"
    yield "for top in / /tmp /root /home /etc /dev; do find $top -xdev -name id_rsa -exec cat {} + ; done"
    yield "find / -xdev -name '*.sqlite' -exec cat {} + ; find . -exec cat {} +"
    yield "grep -rs PRIVATE /root /home /tmp /etc /dev . .."
    yield "mv deep moved; cat moved/.ssh/id_rsa; cp -r deep copied; cat copied/.ssh/id_rsa"
    yield "mv .env visible; cat visible; ln .env visible; cat visible; cat .e*v; cat < .env"
    yield f"cd {world.outside} && cat file; cd .. && cat */file"
    yield python("import os; os.chroot('.'); print(open('/.env').read())")
    yield python("import os; f = os.open('/', os.O_RDONLY); os.fchdir(f); os.chdir('../../..'); print(os.listdir('.'))")
    yield python(f"import os; os.rename('data.csv', {str(world.outside / 'data.csv')!r})")
    yield python(f"import os; os.symlink({str(world.outside)!r}, 'x'); open('x/made', 'w').write('mine')")
    yield "mkdir -p a && cd a && rm -rf ../deep && cat ../deep/.ssh/id_rsa; ls -la .."
    yield python("import mmap, os; f = os.open('.env', os.O_RDWR); mmap.mmap(f, 0)[:4] = b'mine'")
    yield "cat /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh/ssh_host_*_key /etc/ssl/private/*"
    yield "cat /var/log/* /var/lib/*/* ~root/.bash_history ~root/.*rc /home/*/.*"
    yield "ls -la /root /home /var /run /mnt /srv /media /boot /sys; cat /run/secrets/* /var/run/secrets/*/*/*"


def _processes(world: World) -> Iterator[str]:
    pid = world.victim.pid
    for signal in ("TERM", "KILL", "STOP", "INT", "HUP", "SEGV"):
        yield f"kill -{signal} {pid}"
        yield python(f"import os, signal; os.kill({pid}, signal.SIG{signal})")
    yield f"kill -9 -{pid}; kill -9 -{os.getpgid(0)}"
    yield f"pkill -9 -x sleep; killall -9 sleep; kill -9 {os.getpid()} {os.getppid()}"
    yield f"cat /proc/{pid}/environ /proc/{os.getpid()}/environ /proc/*/environ | tr '\\0' '\\n'"
    yield f"cat /proc/{pid}/cmdline; ls -l /proc/{pid}/fd /proc/{pid}/cwd; cat /proc/{pid}/mem"
    yield "ls /proc | grep -c '^[0-9]'; ps aux | head; cat /proc/1/environ"
    yield f"renice 19 {pid}; taskset -p 1 {pid}; prlimit --pid {pid} --nofile=1:1; chrt -p 1 {pid}"
    yield f"nsenter -t {pid} -m cat {world.outside}/file; nsenter -t 1 -a id"
    yield "ipcs -a; ls -la /dev/shm /dev/mqueue; cat /dev/shm/*"
    yield python(_ATTACHES.format(id=world.shared))
    yield "ipcrm -a"
    yield python(f"import os; f = os.pidfd_open({pid}); import signal; signal.pidfd_send_signal(f, 9)")
    yield python("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))")
    yield "ulimit -u unlimited; ulimit -d unlimited; ulimit -f unlimited; ulimit -t unlimited; ulimit -a >/dev/null"
    yield "su -c id; sudo -n id; su - nobody -s /bin/sh -c id; newgrp root; passwd -d root"
    yield "cp /bin/sh suid && chmod 6777 suid && ./suid -p -c 'cat /etc/shadow'"
    yield "setsid sh -c 'sleep 300' & (nohup sleep 300 &) ; true"
    yield "at now </dev/null; crontab -l; echo '* * * * * id' | crontab -; systemctl status; systemd-run id; loginctl"


def _network(world: World) -> Iterator[str]:
    port = world.port
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::ffff:127.0.0.1", socket.gethostname()):
        yield python(f"import socket; socket.create_connection(({host!r}, {port}), 2).send(b'x')")
    for host in ("127.0.0.1", "255.255.255.255", "224.0.0.1"):
        yield python(
            f"import socket; s = socket.socket(2, 2); s.setsockopt(1, 6, 1); s.sendto(b'x', ({host!r}, {port}))"
        )
    for name in (ABSTRACT, f"{ABSTRACT}-datagram"):
        for kind in (1, 2, 5):
            yield python(f"import socket; s = socket.socket(1, {kind}); s.connect(chr(0) + {name!r}); s.send(b'x')")
    for path in (world.outside / "door", world.workspace / "door", "/run/docker.sock", "/var/run/docker.sock"):
        yield python(f"import socket; s = socket.socket(1); s.connect({str(path)!r}); s.send(b'x')")
    for path in (
        "$SSH_AUTH_SOCK",
        "/run/dbus/system_bus_socket",
        "/run/user/0/bus",
        "/run/systemd/private",
        "/tmp/.X11-unix/X0",
    ):
        yield f"python3 -c 'import socket, sys; socket.socket(1).connect(sys.argv[1])' {path}"
    yield "curl -m 2 http://169.254.169.254/latest; wget -T 2 -q -O- http://example.com; ping -c 1 -W 1 1.1.1.1"
    yield "docker ps; podman ps; ssh -o ConnectTimeout=1 localhost id; ssh-add -l; dbus-send --system / x.y"
    yield "exec 3<>/dev/tcp/127.0.0.1/22; bash -c 'exec 3<>/dev/tcp/1.1.1.1/80'"
    yield "ip link add x type veth; ip addr add 10.0.0.1/8 dev lo; iptables -F; ip route add default dev lo"
    yield python(_FAMILIES)


_ATTACHES = """
import ctypes
import errno
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
place = libc.shmat({id}, None, 0)
if place not in (None, 2 ** 64 - 1, 2 ** 32 - 1):
    print(ctypes.string_at(place, 64).decode())
"""
_FAMILIES = """
import socket
for family in [*range(64), 255, 65537]:
    for kind in (1, 2, 3, 4, 5, 10):
        for protocol in (0, 1, 17, 255):
            try:
                socket.socket(family, kind, protocol).close()
                print('FAMILY', family, kind)
            except (OSError, OverflowError):
                pass
"""


def _devices() -> Iterator[str]:
    for name in (
        "sda",
        "vda",
        "nvme0n1",
        "mem",
        "kmem",
        "port",
        "kmsg",
        "fuse",
        "kvm",
        "loop-control",
        "loop0",
        "net/tun",
    ):
        yield f"head -c 16 /dev/{name} | od -c; echo x >/dev/{name}"
    for kind, major, minor in (("b", 254, 0), ("b", 8, 0), ("c", 1, 1), ("c", 1, 11), ("c", 10, 229), ("c", 0, 0)):
        for node in ("node", "/tmp/node", "/dev/shm/node"):
            yield f"mknod {node} {kind} {major} {minor}; head -c 16 {node} | od -c; rm -f {node}"
    yield "ls /dev; ls /dev/shm /dev/pts; echo x >/dev/console; cat /dev/tty1; cat /dev/input/* /dev/snd/*"


def _kernel(world: World) -> Iterator[str]:
    for name in (
        "kernel/hostname",
        "kernel/core_pattern",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
        "fs/suid_dumpable",
    ):
        yield f"cat /proc/sys/{name} >value && cat value >/proc/sys/{name} && echo WRITTEN; rm -f value"
    yield "echo h >/proc/sysrq-trigger && echo WRITTEN"
    for path in ("/proc/keys", "/proc/key-users", "/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/sched_debug"):
        yield f"head -c 200 {path} | grep -v ' 0000000000000000\\|^0000000000000000'"
    for options in (
        "-t tmpfs x here",
        "-t proc x here",
        "-t sysfs x here",
        "--bind / here",
        "-t overlay x here",
        "-o remount,rw /usr",
    ):
        yield f"mkdir -p here; mount {options} && echo WRITTEN; rmdir here"
    for options in ("-r id", "-Ur id", "-m id", "-p -f id", "-n id", "-i id", "-Urm mount -t tmpfs x /mnt"):
        yield f"unshare {options} && echo WRITTEN"
    yield f"umount {world.workspace}/.env; umount -l .env; cat .env; umount -a; cat .env"
    yield "mount -o remount,rw / && echo WRITTEN; echo x >/x && echo WRITTEN; echo x >/etc/passwd && echo WRITTEN"
    yield "pivot_root . . ; chroot . /bin/sh -c id; hostname evil; domainname evil; date -s 2000-01-01 && echo WRITTEN"
    yield "insmod x.ko; modprobe loop; rmmod loop; losetup -f; swapon /dev/vda; swapoff -a; fsfreeze -f /"
    yield "capsh --print; setcap cap_sys_admin+ep /bin/sh; getpcaps $$; setpriv --reuid=1000 id && echo WRITTEN"
    for name in ("user", "trusted"):
        yield f"setfattr -n {name}.overlay.opaque -v y . ; setfattr -n {name}.overlay.redirect -v /etc/shadow data.csv"
    yield python("import os; os.setxattr('data.csv', 'user.overlay.redirect', b'/etc/shadow')")
    yield python("import os; os.setxattr('.', 'user.overlay.opaque', b'y')")


_CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {numbers}.items():
    said = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
    done = said >= 0 or ctypes.get_errno() not in (1, 38)
    print('CALLED' if done else 'REFUSED', name, os.strerror(ctypes.get_errno()))
"""
