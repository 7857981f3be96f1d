"""The program that carries connections out of a box: from a port of its loopback to the one socket that leads outside.

It is a process of its own beside the person's code, which may end it and harms only itself. Nothing it does is
believed: whom a connection may reach is decided at the other end of that socket.

Source: clone(2) and wait(2): a child that tells its parent nothing at its end is none that `wait` knows of, so code
that waits for all its children never waits for this one. `ctypes` itself takes eight milliseconds longer to import
than what it is made of.
"""

EGRESS_PORT = 3128
"""On the box's loopback: what proxies commonly have."""
EGRESS_FOLDER = "/run/egress"
"""In the box: the folder that holds the socket, and nothing else."""
EGRESS_SOCKET = "proxy"
"""The socket's name in its folder."""
PROXY_URL = f"http://127.0.0.1:{EGRESS_PORT}"
PROXY_ENVIRONMENT = (
    *(f"{name}={PROXY_URL}" for name in ("http_proxy", "https_proxy", "all_proxy")),
    *(f"{name}={PROXY_URL}" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")),
    *(f"{name}=localhost,127.0.0.1,::1" for name in ("no_proxy", "NO_PROXY")),
    "NODE_USE_ENV_PROXY=1",
)
"""By what curl, pip, git, npm, requests and the like are told of a proxy; most read one spelling alone."""

FORWARDER = """
def forward(path, port):
    import _ctypes, _socket, os

    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    if _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "syscall"), (clone, 0, 0, 0, 0, 0)):
        listener.close()
        return
    import select

    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    ends, others, unsent, ended, shut, poll = {}, {}, {}, set(), set(), select.poll()

    def joined():
        near = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, listener._accept()[0])
        far = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        far.connect(path)
        for end, other in ((near, far), (far, near)):
            end.setblocking(False)
            number = end.fileno()
            ends[number], others[number], unsent[number] = end, other.fileno(), b""
            poll.register(number, select.POLLIN)

    def parted(number):
        for one in (number, others[number]):
            watched(one, 0)
            ended.discard(one)
            shut.discard(one)
            ends.pop(one).close()
            del others[one], unsent[one]

    def watched(number, events):
        if events:
            poll.register(number, events)
            return
        try:
            poll.unregister(number)
        except KeyError:
            pass

    def sent(number):
        try:
            unsent[number] = unsent[number][ends[number].send(unsent[number]) :]
        except BlockingIOError:
            pass

    def moved(number):
        other = others[number]
        if unsent[number]:
            sent(number)
        elif not unsent[other] and number not in ended:
            unsent[other] = ends[number].recv(65536)
            if unsent[other]:
                sent(other)
            else:
                ended.add(number)
        for one in (number, other):
            if others[one] in ended and not unsent[one] and one not in shut:
                ends[one].shutdown(_socket.SHUT_WR)
                shut.add(one)
        if number in shut and other in shut:
            parted(number)
            return
        for one in (number, other):
            reads = select.POLLIN if one not in ended and not unsent[others[one]] else 0
            watched(one, reads | (select.POLLOUT if unsent[one] else 0))

    poll.register(listener.fileno(), select.POLLIN)
    while True:
        for number, _ in poll.poll():
            try:
                if number == listener.fileno():
                    joined()
                elif number in ends:
                    moved(number)
            except BlockingIOError:
                pass
            except OSError:
                if number in ends:
                    parted(number)
"""
"""Python that defines `forward(path, port)`: afterwards the port is there, and a process of its own looks after it."""
