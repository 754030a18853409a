# SPDX-License-Identifier: Apache-2.0
"""A daemon of canned answers on a UNIX socket: enough of one to test tcpfsmctl without root."""
import array
import json
import os
import socket
import threading


class Fake:
    """answers: method -> result, or (code, name, message) for an error, or a function(params, fake) that gives
    either, or HANG, CLOSE, or octets that are sent as they are. Requests are kept in self.requests.
    A result may be a tuple ('fd', result, descriptor): the descriptor goes with the line and is then closed here."""

    HANG, CLOSE = object(), object()

    def __init__(self, path, answers):
        self.path, self.answers, self.requests, self.held = path, answers, [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            with client, client.makefile('rb') as lines:
                for line in lines:
                    if not self.answer(client, json.loads(line)):
                        return
        except OSError:
            pass

    def answer(self, client, request):
        self.requests.append(request)
        what = self.answers.get(request['method'], (-32601, 'method_not_found', 'no such method'))
        if callable(what):
            what = what(request.get('params', {}), self)
        if what is self.HANG:
            self.held.append(client.dup())
            return False
        if what is self.CLOSE:
            return False
        if isinstance(what, bytes):
            client.sendall(what)
            return True
        reply, fd = {'jsonrpc': '2.0', 'id': request['id']}, None
        if isinstance(what, tuple) and what[0] == 'fd':
            _, reply['result'], fd = what
        elif isinstance(what, tuple):
            reply['error'] = {'code': what[0], 'message': what[2], 'data': {'name': what[1]}}
        else:
            reply['result'] = what
        octets = json.dumps(reply).encode() + b'\n'
        if fd is None:
            client.sendall(octets)
        else:
            client.sendmsg([octets], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd.fileno()]))])
            fd.close()
        return True

    def close(self):
        # shutdown() wakes the thread that waits in accept(); close() alone would not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for s in self.held:
            s.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
