"""Publishes events repeatedly, checks that each is stored once, and reads them back."""

import random
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from event_aggregator.v1 import event_aggregator_pb2 as pb
from event_aggregator.v1 import event_aggregator_pb2_grpc as pb_grpc

SOURCE = "python-example"
TIMEOUT = 30.0  # Seconds. Without a deadline, a call may wait forever.

STREAM_EVENTS = 1_000
STREAM_REPEATED = 300
EVENTS_PER_REQUEST = 100
PAGE_SIZE = 300

# Numbers in a Struct are 64-bit floats, which cannot represent this one. JSON text can.
EXACT_JSON = '{"n": 9007199254740993}'


class CheckFailed(Exception):
    """The service returned an unexpected response."""


def check(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise CheckFailed(f"{what}: expected {expected!r}, got {actual!r}")


def statuses(response: pb.PublishResponse) -> list[str]:
    return [pb.PublishStatus.Name(result.status) for result in response.results]


def publish_unary(stub: pb_grpc.EventAggregatorServiceStub, topic: str) -> list[str]:
    """Publishes two events, both again, and a modified one. Returns the stored ids."""
    # The producer sets id and timestamp once, and reuses both in a retry.
    order = pb.Event(
        topic=topic,
        event_id="order-1",
        timestamp=datetime.now(timezone.utc),
        source=SOURCE,
        payload={"customer": "Ada", "total": 12.5, "items": ["tea", "cup"]},
    )
    exact = pb.Event(
        topic=topic,
        event_id="exact-1",
        timestamp=datetime.now(timezone.utc),
        source=SOURCE,
        payload_json=EXACT_JSON,
    )
    request = pb.PublishRequest(events=[order, exact])

    first = stub.Publish(request, timeout=TIMEOUT)
    check("first publish", statuses(first), ["PUBLISH_STATUS_ACCEPTED"] * 2)
    print(f"publish: {first.unique_processed} new")

    again = stub.Publish(request, timeout=TIMEOUT)
    check("second publish", statuses(again), ["PUBLISH_STATUS_DUPLICATE"] * 2)
    print(f"publish again: {again.duplicate_dropped} duplicates")

    changed = pb.Event()
    changed.CopyFrom(order)
    changed.payload["total"] = 99.0
    response = stub.Publish(pb.PublishRequest(events=[changed]), timeout=TIMEOUT)
    check("changed publish", statuses(response), ["PUBLISH_STATUS_CONFLICT"])
    differing = list(response.results[0].differing_fields)
    check("differing fields", differing, ["payload"])
    print(f"publish changed: conflict in {', '.join(differing)}")

    return [order.event_id, exact.event_id]


def publish_stream(stub: pb_grpc.EventAggregatorServiceStub, topic: str) -> list[str]:
    """Streams 1,000 events, 300 of them duplicates. Returns the stored ids."""
    unique = [
        pb.Event(
            topic=topic,
            event_id=f"stream-{number}",
            timestamp=datetime.now(timezone.utc),
            source=SOURCE,
            payload={"number": number},
        )
        for number in range(STREAM_EVENTS - STREAM_REPEATED)
    ]
    events = unique + random.sample(unique, STREAM_REPEATED)
    random.shuffle(events)

    requests = [
        pb.PublishStreamRequest(
            events=events[start : start + EVENTS_PER_REQUEST],
            request_id=f"request-{start // EVENTS_PER_REQUEST}",
        )
        for start in range(0, len(events), EVENTS_PER_REQUEST)
    ]

    # gRPC sends the requests from its own thread, without waiting for the responses. A request
    # is stored once its response arrives; if the stream breaks, send the others again.
    acknowledged: list[str] = []
    new = repeated = 0
    for response in stub.PublishStream(iter(requests), timeout=TIMEOUT):
        acknowledged.append(response.request_id)
        # An invalid event is rejected in the response and does not end the stream.
        check(f"rejected in {response.request_id}", response.rejected, 0)
        check(f"conflicts in {response.request_id}", response.conflicts, 0)
        new += response.unique_processed
        repeated += response.duplicate_dropped

    check("order of acknowledgements", acknowledged, [r.request_id for r in requests])
    check("new events of the stream", new, STREAM_EVENTS - STREAM_REPEATED)
    check("repeated events of the stream", repeated, STREAM_REPEATED)
    print(f"stream: {len(acknowledged)} requests acknowledged, {new} new, {repeated} duplicates")

    return [event.event_id for event in unique]


def list_pages(
    stub: pb_grpc.EventAggregatorServiceStub, topic: str
) -> Iterator[pb.ListEventsResponse]:
    request = pb.ListEventsRequest(topic=topic, page_size=PAGE_SIZE)
    while True:
        page = stub.ListEvents(request, timeout=TIMEOUT)
        yield page
        # Only an empty token marks the last page: a page may be short although more follow.
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def list_events(
    stub: pb_grpc.EventAggregatorServiceStub, topic: str, stored: list[str]
) -> None:
    pages = list(list_pages(stub, topic))
    listed = [event.event_id for page in pages for event in page.events]
    check("listed events", sorted(listed), sorted(stored))
    print(f"list: {len(listed)} events in {len(pages)} pages")


def read_exact_json(stub: pb_grpc.EventAggregatorServiceStub, topic: str) -> None:
    request = pb.BatchGetEventsRequest(
        keys=[pb.EventKey(topic=topic, event_id="exact-1")],
        payload_format=pb.PAYLOAD_FORMAT_JSON,
    )
    response = stub.BatchGetEvents(request, timeout=TIMEOUT)
    payloads = [event.payload_json for event in response.events]
    check("exact payload", payloads, [EXACT_JSON])
    print(f"exact JSON: {payloads[0]}")


def read_stats(stub: pb_grpc.EventAggregatorServiceStub, topic: str) -> pb.TopicStats:
    response = stub.GetStats(pb.GetStatsRequest(topic=topic), timeout=TIMEOUT)
    check("topics in the statistics", [stats.topic for stats in response.topics], [topic])
    stats = response.topics[0]
    print(
        f"stats: received {stats.received}, unique {stats.unique_processed}, "
        f"duplicates {stats.duplicate_dropped}, conflicts {stats.conflicts}"
    )
    return stats


def subscribe(
    stub: pb_grpc.EventAggregatorServiceStub, topic: str, stored: list[str]
) -> None:
    """Reads the feed in two parts, resuming from the last cursor of the first part."""
    request = pb.SubscribeRequest(topics=[topic])
    received: list[str] = []
    for _ in range(2):
        feed = stub.Subscribe(request, timeout=TIMEOUT)
        for frame in feed:
            if frame.HasField("caught_up"):
                break  # The feed would continue with new events.
            for event in frame.events.events:
                received.append(event.event_id)
                request.cursor = event.cursor
                if len(received) == len(stored) // 2:
                    break
            if len(received) == len(stored) // 2:
                break
        feed.cancel()
    check("events of the feed", sorted(received), sorted(stored))
    print(f"feed: {len(received)} events, each once")


def field_violations(error: grpc.RpcError) -> dict[str, str]:
    """The field violations in the error's BadRequest details."""
    status = rpc_status.from_call(error)
    violations: dict[str, str] = {}
    for detail in status.details if status else []:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):  # False for details of another type.
            violations |= {v.field: v.description for v in bad_request.field_violations}
    return violations


def read_violations(stub: pb_grpc.EventAggregatorServiceStub, topic: str) -> None:
    invalid = pb.Event(topic=topic, event_id="", source=" spaces ")
    try:
        stub.Publish(pb.PublishRequest(events=[invalid]), timeout=TIMEOUT)
    except grpc.RpcError as error:
        check("code of the error", error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        violations = field_violations(error)
    else:
        raise CheckFailed("an invalid event was accepted")
    print("invalid: " + "; ".join(f"{f}: {why}" for f, why in violations.items()))
    check("invalid fields", sorted(violations), ["events[0].event_id", "events[0].source"])


def run(address: str) -> None:
    topic = f"python-example-{uuid.uuid4()}"
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.EventAggregatorServiceStub(channel)
        stored = publish_unary(stub, topic) + publish_stream(stub, topic)
        list_events(stub, topic, stored)
        subscribe(stub, topic, stored)
        read_exact_json(stub, topic)
        read_violations(stub, topic)
        # Last, to check that the rejected event was not counted.
        stats = read_stats(stub, topic)

    published = 2 + 2 + 1 + STREAM_EVENTS
    check("received", stats.received, published)
    check("unique", stats.unique_processed, len(stored))
    check("duplicates", stats.duplicate_dropped, published - len(stored))
    check("conflicts", stats.conflicts, 1)
    print(
        f"ok: received {stats.received} = unique {stats.unique_processed} "
        f"+ duplicates {stats.duplicate_dropped}"
    )


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: client.py ADDRESS", file=sys.stderr)
        return 2
    try:
        run(sys.argv[1])
    except CheckFailed as error:
        print(f"check failed: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"call failed: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
