"""paho-mqtt: MQTT with its network loop on a thread, a callback for each message."""

from __future__ import annotations

import queue
import threading
import time

import attrs
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage

from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work


def _connected(address: Address, window: int) -> Client:
    """A connected client; its loop is not running yet."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(window)
    client.max_queued_messages_set(0)
    client.connect(address[0], address[1], keepalive=0)
    return client


def _subscribed(client: Client, topics: list[str], qos: int) -> None:
    """Start the loop, and return when the topics are subscribed."""
    granted = threading.Event()
    client.on_subscribe = lambda *_: granted.set()
    client.loop_start()
    client.subscribe([(topic, qos) for topic in topics])
    granted.wait()


@attrs.frozen
class PahoDriver:
    """At the QoS that the guarantee asks for; the library acknowledges after the callback."""

    name: str = "paho-mqtt"

    def prepare(self, address: Address, work: Work) -> None:
        """Nothing has to be there beforehand."""

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    def publish(self, address: Address, publishing: Publishing) -> None:
        qos = int(publishing.work.guarantee)
        client = _connected(address, publishing.work.window)
        sent_ns: dict[int, int] = {}
        known = threading.Event()

        def published(_client: Client, _data: object, message_id: int, *_rest: object) -> None:
            while message_id not in sent_ns:  # the call that gives the id has not returned
                known.wait()
                known.clear()
            publishing.confirm(1, sent_ns.pop(message_id))

        if qos:
            client.on_publish = published
        client.loop_start()
        last = None
        publishing.go()
        while not publishing.finished:
            messages = () if publishing.done else publishing.next()
            for topic, body in messages:
                now_ns = time.monotonic_ns()
                last = client.publish(topic, body, qos)
                if last.rc:
                    raise Refused(f"paho-mqtt does not publish: error {last.rc}")
                if qos:
                    sent_ns[last.mid] = now_ns
                    known.set()
            if not messages:
                time.sleep(publishing.pause_seconds())
        if last and not qos:
            last.wait_for_publish()
        client.disconnect()
        client.loop_stop()

    def consume(self, address: Address, consuming: Consuming) -> None:
        client = _connected(address, consuming.work.window)
        ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def handle(_client: Client, _data: object, message: MQTTMessage) -> None:
            try:
                if consuming.take(message.payload):
                    ended.put(None)
            except Exception as error:  # noqa: BLE001, the library would end its thread in silence
                ended.put(error)

        client.on_message = handle
        _subscribed(client, consuming.topics, int(consuming.work.guarantee))
        consuming.go()
        if failure := ended.get():
            raise failure
        # What is acknowledged is sent by the loop before it ends.
        client.disconnect()
        client.loop_stop()

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        client = _connected(address, trips.work.window)
        qos = int(trips.work.guarantee)
        came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        client.on_message = lambda _client, _data, message: came.put(message.payload)
        _subscribed(client, [trips.topic], qos)
        trips.go()
        while not trips.done:
            client.publish(trips.topic, trips.body(), qos)
            trips.took(came.get())
        client.disconnect()
        client.loop_stop()
