/**
 * BlipMQ in a web page: a client of protocol version 2 over WebSocket.
 *
 * An ES module without dependencies and without a build step; docs/javascript.md describes it.
 * Numbers that the broker gives out (tags) are BigInt, since they have 64 bits; times are in
 * milliseconds.
 */

const HELLO = 0x01;
const AUTH = 0x02;
const PUBLISH = 0x03;
const ACK = 0x05;
const NACK = 0x06;
const PING = 0x07;
const PONG = 0x08;
const INFO = 0x10;
const DELIVER = 0x11;
const CONFIRM = 0x12;
const MESSAGE = 0x13;
const ATTACH = 0x14;
const DETACH = 0x15;
const SETTLE = 0x16;

const ACCEPT = 0;
const RETRY = 1;
const REJECT = 2;
const EXTEND = 3;
const RELEASE = 4;

const VERSION = 2;
const HEADER_BYTES = 13;
const LENGTH_MAX = 16_777_216;
const LENGTH_MAX_PUBLISH = LENGTH_MAX - 4096;
const NUMBER_MAX = 2 ** 64;
const DELAY_MAX_MS = 2 ** 32 - 1;

const BUFFERED_MAX_BYTES = 1 << 20; // handed to the browser and not sent yet
const BUFFERED_LOOK_MS = 10; // no event tells when that has become less
const QUEUED_MAX = 10_000; // publishes that wait for their turn
const QOS0_QUEUE = 1_024; // received and not taken, of a subscription at QoS 0
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 10_000;

/** The base of all errors of this module. */
export class BlipMQError extends Error {
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** The broker has refused a request, and said so with a code and a message. */
export class Refused extends BlipMQError {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}
/** 400: malformed, or it does not fit what is there. */
export class BadRequest extends Refused {}
/** 401: the API key is unknown. */
export class AuthenticationFailed extends Refused {}
/** 403: the API key may not do this. */
export class NotPermitted extends Refused {}
/** 404: it does not exist. */
export class NotFound extends Refused {}
/** 413: the message is too large. */
export class TooLarge extends Refused {}
/** 426: the broker is too old for this module. */
export class UnsupportedVersion extends Refused {}
/** 429: a limit that the operator set. */
export class LimitExceeded extends Refused {}
/** 500: the log could not take the message; it was not published. */
export class PublishFailed extends Refused {}
/** 503: not now: a backlog is full. */
export class Unavailable extends Refused {}
/** The connection ended. What was not answered may or may not have happened. */
export class ConnectionLost extends BlipMQError {}
/** The client was closed. */
export class ClientClosed extends BlipMQError {}
/** The broker has ended the subscription. */
export class SubscriptionEnded extends BlipMQError {}
/** Too many publishes wait already. */
export class WindowFull extends BlipMQError {}

const REFUSALS = new Map([
  [400, BadRequest],
  [401, AuthenticationFailed],
  [403, NotPermitted],
  [404, NotFound],
  [413, TooLarge],
  [426, UnsupportedVersion],
  [429, LimitExceeded],
  [500, PublishFailed],
  [503, Unavailable],
]);

function refusal(code, message) {
  return new (REFUSALS.get(code) ?? Refused)(code, message);
}

// Bytes

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function joined(parts) {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function u8(value) {
  return Uint8Array.of(value);
}

function u16(value) {
  return Uint8Array.of(value >> 8, value & 0xff);
}

function u32(value) {
  const bytes = new Uint8Array(4);
  view(bytes).setUint32(0, value);
  return bytes;
}

function u64(value) {
  const bytes = new Uint8Array(8);
  view(bytes).setBigUint64(0, BigInt(value));
  return bytes;
}

function frame(type, id, ...parts) {
  const size = parts.reduce((sum, part) => sum + part.length, HEADER_BYTES - 4);
  return joined([u32(size), u8(type), u64(id), ...parts]);
}

/** u16 length and the bytes of a string. */
function text(value, what, maxBytes = 0xffff) {
  if (typeof value !== "string") {
    throw new TypeError(`${what}: expected a string, found ${typeof value}`);
  }
  const bytes = encoder.encode(value);
  if (bytes.length > maxBytes) {
    throw new RangeError(`${what}: expected at most ${maxBytes} bytes, found ${bytes.length}`);
  }
  return joined([u16(bytes.length), bytes]);
}

function body(value) {
  if (typeof value === "string") {
    return encoder.encode(value);
  }
  if (value instanceof ArrayBuffer) {
    return new Uint8Array(value.slice(0));
  }
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  }
  throw new TypeError("body: expected a string, an ArrayBuffer or a view of one");
}

function whole(value, what, max, min = 0) {
  const number = typeof value === "bigint" ? value : Math.round(Number(value));
  if (!(number >= min && number < max)) {
    throw new RangeError(`${what}: expected a number from ${min} and below ${max}, found ${value}`);
  }
  return number;
}

function property(id, value) {
  return joined([u8(id), u16(value.length), value]);
}

function textProperty(id, value, what, maxBytes) {
  return joined([u8(id), text(value, what, maxBytes)]);
}

/** Puts received bytes together, and yields whole frames. */
class Splitter {
  #parts = [];
  #size = 0;
  #needed = 4;

  *push(bytes) {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    if (this.#size < this.#needed) {
      return;
    }
    const data = this.#parts.length === 1 ? bytes : joined(this.#parts);
    let at = 0;
    this.#needed = 4;
    while (data.length - at >= 4) {
      const length = view(data).getUint32(at);
      if (length < HEADER_BYTES - 4 || length > LENGTH_MAX) {
        throw new ConnectionLost(`the broker sent a frame of length ${length}`);
      }
      if (data.length - at < 4 + length) {
        this.#needed = 4 + length;
        break;
      }
      yield {
        type: data[at + 4],
        id: view(data).getBigUint64(at + 5),
        payload: data.subarray(at + HEADER_BYTES, at + 4 + length),
      };
      at += 4 + length;
    }
    this.#parts = at < data.length ? [data.subarray(at)] : [];
    this.#size = data.length - at;
  }
}

/** An error that nobody waits for. */
function report(error) {
  (globalThis.reportError ?? console.error)(error);
}

/** The options of a publish as properties. */
function messageProperties(options) {
  const parts = [];
  if (options.ttlMs !== undefined) {
    parts.push(property(1, u64(whole(options.ttlMs, "ttlMs", NUMBER_MAX))));
  }
  if (options.delayMs !== undefined) {
    parts.push(property(2, u64(whole(options.delayMs, "delayMs", NUMBER_MAX))));
  }
  if (options.messageId !== undefined) {
    parts.push(textProperty(3, options.messageId, "messageId", 128));
  }
  if (options.key !== undefined) {
    parts.push(textProperty(4, options.key, "key", 1024));
  }
  if (options.replyTo !== undefined) {
    parts.push(textProperty(5, options.replyTo, "replyTo"));
  }
  if (options.contentType !== undefined) {
    parts.push(textProperty(6, options.contentType, "contentType"));
  }
  if (options.traceparent !== undefined) {
    parts.push(textProperty(7, options.traceparent, "traceparent"));
  }
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    const bytes = encoder.encode(name);
    if (bytes.length > 255) {
      throw new RangeError(`headers: expected a name of at most 255 bytes, found ${name}`);
    }
    parts.push(property(8, joined([u8(bytes.length), bytes, encoder.encode(String(value))])));
  }
  if (options.timestamp !== undefined) {
    parts.push(property(9, u64(whole(Number(options.timestamp), "timestamp", NUMBER_MAX))));
  }
  return joined(parts);
}

const PUBLISH_OPTIONS = new Set([
  "qos", "ttlMs", "delayMs", "messageId", "key", "replyTo", "contentType", "traceparent",
  "headers", "timestamp",
]);
const SUBSCRIBE_OPTIONS = new Set([
  "qos", "name", "prefetch", "pattern", "start", "ackWaitMs", "maxAttempts",
]);
const CONNECT_OPTIONS = new Set([
  "apiKey", "connectTimeoutMs", "reconnect", "reconnectTimeoutMs", "maxUnconfirmed",
]);

/** A misspelt option is an error, not a surprise. */
function checkOptions(options, known) {
  for (const name of Object.keys(options)) {
    if (!known.has(name)) {
      throw new TypeError(`unknown option ${name}; expected one of ${[...known].join(", ")}`);
    }
  }
}

function checkedQos(qos) {
  if (qos !== 0 && qos !== 1) {
    throw new RangeError(`qos: expected 0 or 1, found ${qos}`);
  }
  return qos;
}

function startProperty(start) {
  if (start === "new") {
    return property(34, u8(0));
  }
  if (start === "earliest") {
    return property(34, u8(1));
  }
  if (typeof start === "bigint") {
    return property(34, joined([u8(2), u64(start)]));
  }
  if (start instanceof Date) {
    return property(34, joined([u8(3), u64(start.getTime())]));
  }
  throw new TypeError('start: expected "new", "earliest", a tag (BigInt) or a Date');
}

function isPattern(topic) {
  const levels = topic.split(".");
  return levels.includes("*") || levels.at(-1) === ">";
}

/** A message that was received. */
export class Message {
  #link;
  #attachment;

  /** @hideconstructor */
  constructor(link, attachment, type, id, payload) {
    this.#link = link;
    this.#attachment = attachment;
    const data = view(payload);
    /** 0 or 1. */
    this.qos = data.getUint8(0);
    /** Its number in the broker, a BigInt; null at QoS 0. */
    this.tag = this.qos ? id : null;
    let at = 3 + data.getUint16(1);
    this.topic = decoder.decode(payload.subarray(3, at));
    /** How often it was delivered, this time included. */
    this.attempt = 1;
    /** An object without a prototype. */
    this.headers = Object.create(null);
    /** Of a message in a `$dead.` topic: why it is there, and where it comes from. */
    this.deadLetter = null;
    this.settled = false;
    if (type === MESSAGE) {
      const end = at + 2 + data.getUint16(at);
      at += 2;
      while (at < end) {
        const size = data.getUint16(at + 1);
        this.#property(data.getUint8(at), payload.subarray(at + 3, at + 3 + size));
        at += 3 + size;
      }
    }
    /** A Uint8Array. */
    this.body = payload.slice(at);
  }

  #property(id, value) {
    const data = view(value);
    switch (id) {
      case 1: this.ttlMs = Number(data.getBigUint64(0)); break;
      case 3: this.messageId = decoder.decode(value); break;
      case 4: this.key = decoder.decode(value); break;
      case 5: this.replyTo = decoder.decode(value); break;
      case 6: this.contentType = decoder.decode(value); break;
      case 7: this.traceparent = decoder.decode(value); break;
      case 8: {
        const end = 1 + value[0];
        this.headers[decoder.decode(value.subarray(1, end))] = decoder.decode(value.subarray(end));
        break;
      }
      case 9: this.timestamp = new Date(Number(data.getBigUint64(0))); break;
      case 16: this.attempt = data.getUint16(0); break;
      case 17: {
        const [reason, topic, tag, subscription] = decoder.decode(value).split("\0");
        this.deadLetter = { reason, topic, tag: BigInt(tag), subscription };
        break;
      }
    }
  }

  /** The body as text. */
  text() {
    return decoder.decode(this.body);
  }

  /** The body as what its JSON says. */
  json() {
    return JSON.parse(this.text());
  }

  /** It is done with, and does not come again. */
  accept() {
    return this.#settle(ACCEPT);
  }

  /** It comes again after the delay; 0: after the broker's own backoff. */
  retry(delayMs = 0) {
    return this.#settle(RETRY, whole(delayMs, "delayMs", DELAY_MAX_MS + 1));
  }

  /** It goes to the dead letters. */
  reject() {
    return this.#settle(REJECT);
  }

  /** It goes back at once, and this delivery does not count as an attempt. */
  release() {
    return this.#settle(RELEASE);
  }

  /** It is still being worked on: its time begins anew. */
  extend() {
    return this.#settle(EXTEND);
  }

  /**
   * False when it was settled before, or when the connection that brought it is gone: then it
   * comes again.
   */
  #settle(outcome, delayMs = 0) {
    if (this.settled || !this.#link.holds(this.#attachment)) {
      return false;
    }
    this.settled = outcome !== EXTEND;
    if (this.qos) {
      this.#link.settle(this.#attachment, outcome, this.tag, delayMs);
    }
    return true;
  }
}

/**
 * Messages of a topic or a pattern: an async iterator, to be used by one loop at a time. Leaving
 * the loop closes it.
 */
export class Subscription {
  #client;
  #queue = [];
  #waiting = [];
  #error = null;
  #ended = false;

  /** @hideconstructor */
  constructor(client, topic, qos, name, request) {
    this.#client = client;
    this.topic = topic;
    this.qos = qos;
    this.name = name;
    /** The payload of ATTACH. */
    this._request = request;
    /** The broker's id of it on the present connection; null between two. */
    this._attachment = null;
    /** Messages at QoS 0 that were thrown away because nobody took them. */
    this.dropped = 0;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** The next message, as iterators give it. Rejects with what ended the subscription. */
  next() {
    if (this.#queue.length) {
      return Promise.resolve({ value: this.#queue.shift(), done: false });
    }
    if (this.#error !== null) {
      return Promise.reject(this.#error);
    }
    if (this.#ended) {
      return Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** What leaving a loop calls. */
  async return() {
    await this.close();
    return { value: undefined, done: true };
  }

  /**
   * Ends it. What was not settled goes to others, or comes again to this name. With `delete`, a
   * named one ends for all, with its backlog.
   */
  async close({ delete: deleted = false } = {}) {
    if (!this.#ended) {
      this._finish(null);
      await this.#client._detach(this, deleted);
    }
  }

  _take(message) {
    const waiting = this.#waiting.shift();
    if (waiting) {
      waiting.resolve({ value: message, done: false });
      return;
    }
    this.#queue.push(message);
    if (!this.qos && this.#queue.length > QOS0_QUEUE) {
      this.#queue.shift();
      this.dropped += 1;
    }
  }

  /** The connection is gone: what it brought and nobody took yet comes again, if it has a name. */
  _lost() {
    this._attachment = null;
    if (this.name !== undefined) {
      this.#queue = [];
    }
  }

  _finish(error) {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.#error = error;
    if (error === null) {
      this.#queue = [];
    }
    for (const waiting of this.#waiting.splice(0)) {
      if (error === null) {
        waiting.resolve({ value: undefined, done: true });
      } else {
        waiting.reject(error);
      }
    }
  }
}

/** One connection, from the WebSocket to its end. `owner` gets what it does not answer itself. */
class Link {
  draining = false;
  attached = new Map();
  #socket;
  #owner;
  #splitter = new Splitter();
  #expected = new Map();
  #settlements = new Map();
  #lastSent = 0;
  #pingedAt = null;
  #timer = null;
  #ended = null;

  constructor(socket, owner) {
    this.#socket = socket;
    this.#owner = owner;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", (event) => this.#receive(event.data));
    socket.addEventListener("close", (event) => {
      const reason = event.reason ? `: ${event.reason}` : "";
      this.end(new ConnectionLost(`the connection was closed with code ${event.code}${reason}`));
    });
  }

  /** A connection that has authenticated. Rejects with ConnectionLost or Refused. */
  static async open(url, key, timeoutMs, owner, id) {
    const socket = new WebSocket(url, ["blipmq"]);
    const link = new Link(socket, owner);
    const timer = setTimeout(
      () => link.end(new ConnectionLost(`no answer from ${url} within ${timeoutMs} ms`)),
      timeoutMs,
    );
    try {
      await new Promise((resolve, reject) => {
        // Browsers do not say why there is no connection.
        const lost = ({ message }) => reject(new ConnectionLost(`cannot connect to ${url}: ${message}`));
        link.#expected.set(0n, { resolve, reject: lost });
        socket.addEventListener("open", resolve);
      });
      link.#expected.delete(0n);
      // Both at once: an answer to the second only counts if the first one was good.
      const hello = link.request(HELLO, id(), u16(VERSION));
      const auth = link.request(AUTH, id(), text(key, "apiKey"));
      await Promise.all([hello, auth]);
    } catch (error) {
      link.end(error);
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return link;
  }

  get usable() {
    return this.#ended === null;
  }

  get busy() {
    return this.#socket.bufferedAmount > BUFFERED_MAX_BYTES;
  }

  holds(attachment) {
    return this.usable && this.attached.has(attachment);
  }

  send(bytes) {
    this.#lastSent = Date.now();
    this.#socket.send(bytes);
  }

  /** Resolves with the payload of the answer. Rejects with Refused or ConnectionLost. */
  request(type, id, ...parts) {
    return this.#ask(() => {}, type, id, ...parts);
  }

  /** Attaches the subscription; resolves with the attachment's id. */
  async attach(id, subscription) {
    // Messages may follow at once, so it has to be known before anything else is looked at.
    const answered = (payload) => {
      subscription._attachment = view(payload).getBigUint64(0);
      this.attached.set(subscription._attachment, subscription);
    };
    await this.#ask(answered, ATTACH, id, subscription._request);
    return subscription._attachment;
  }

  #ask(answered, type, id, ...parts) {
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) {
        reject(this.#ended);
        return;
      }
      const done = (payload) => {
        answered(payload);
        resolve(payload);
      };
      this.#expected.set(BigInt(id), { resolve: done, reject });
      this.flush();
      this.send(frame(type, id, ...parts));
    });
  }

  settle(attachment, outcome, tag, delayMs) {
    if (!this.#settlements.size) {
      queueMicrotask(() => this.flush());
    }
    const rows = this.#settlements.get(attachment) ?? [];
    this.#settlements.set(attachment, rows);
    rows.push(u8(outcome), u64(tag), u64(tag), u32(delayMs));
  }

  /** Sends the settlements that were gathered. */
  flush() {
    if (this.usable) {
      for (const [attachment, rows] of this.#settlements) {
        this.send(frame(SETTLE, attachment, ...rows));
      }
    }
    this.#settlements.clear();
  }

  /** Ends it, for this reason unless there was one before. */
  end(error, code = 1000) {
    if (this.#ended !== null) {
      return;
    }
    this.flush();
    this.#ended = error;
    clearInterval(this.#timer);
    this.#socket.close(code);
    const expected = [...this.#expected.values()];
    this.#expected.clear();
    for (const { reject } of expected) {
      reject(error);
    }
    this.#owner._ended(this, error);
  }

  #receive(data) {
    if (this.#ended !== null) {
      return;
    }
    this.#pingedAt = null;
    try {
      if (typeof data === "string") {
        throw new ConnectionLost("the broker sent a text message");
      }
      for (const each of this.#splitter.push(new Uint8Array(data))) {
        this.#handle(each);
      }
    } catch (error) {
      // RangeError: a frame that ends too early
      const lost = error instanceof BlipMQError ? error : new ConnectionLost(String(error));
      this.end(lost, 4002);
    }
  }

  #handle({ type, id, payload }) {
    switch (type) {
      case ACK:
      case PONG: {
        const waiting = this.#expected.get(id);
        this.#expected.delete(id);
        waiting?.resolve(payload);
        break;
      }
      case NACK: {
        const code = view(payload).getUint16(0);
        const error = refusal(code, decoder.decode(payload.subarray(4)));
        const waiting = this.#expected.get(id);
        if (waiting) {
          this.#expected.delete(id);
          waiting.reject(error);
        } else {
          this.#owner._refused(id, error);
        }
        break;
      }
      case CONFIRM:
        this.#owner._confirmed(id);
        break;
      case DELIVER:
        this.#deliver(id, payload);
        break;
      case DETACH: {
        const attachment = view(payload).getBigUint64(0);
        const subscription = this.attached.get(attachment);
        this.attached.delete(attachment);
        const reason = decoder.decode(payload.subarray(10));
        subscription?._finish(new SubscriptionEnded(reason));
        if (subscription) {
          this.#owner._forget(subscription);
        }
        break;
      }
      case INFO:
        this.#info(JSON.parse(decoder.decode(payload)));
        break;
      default:
        throw new ConnectionLost(`the broker sent a frame of type ${type}`);
    }
  }

  #deliver(attachment, payload) {
    const subscription = this.attached.get(attachment);
    if (!subscription) {
      return; // closed meanwhile; the broker has it back
    }
    for (const inner of new Splitter().push(payload)) {
      subscription._take(new Message(this, attachment, inner.type, inner.id, inner.payload));
    }
  }

  #info(info) {
    clearInterval(this.#timer);
    const heartbeat = info.heartbeat_ms;
    if (heartbeat > 0) {
      this.#timer = setInterval(() => this.#beat(heartbeat), heartbeat / 3);
    }
    if (info.draining && !this.draining) {
      this.draining = true;
      this.#owner._draining();
    }
  }

  /** Lets the broker hear of this client, and notices when the broker is gone. */
  #beat(heartbeat) {
    const now = Date.now();
    if (this.#pingedAt !== null && now - this.#pingedAt >= heartbeat) {
      this.end(new ConnectionLost(`the broker was silent for ${now - this.#pingedAt} ms`), 4000);
    } else if (this.#pingedAt === null && now - this.#lastSent >= heartbeat / 2) {
      this.#pingedAt = now;
      this.send(frame(PING, 0));
    }
  }
}

/**
 * A connection to a broker, which is replaced when it is lost; from `connect`.
 *
 * Events: `statechange`, after which `state` is another, and `refused`, for a publish at QoS 0
 * that the broker has refused; its `error` says why.
 */
export class Client extends EventTarget {
  #url;
  #key;
  #options;
  #link = null;
  #state = "connecting";
  #nextId = 1;
  #prefix;
  #published = 0;
  #queue = [];
  #unconfirmed = new Map();
  #subscriptions = new Set();
  #idle = [];
  #looking = null;

  /** @hideconstructor */
  constructor(url, options) {
    super();
    this.#url = url;
    this.#key = options.apiKey;
    this.#options = options;
    const random = crypto.getRandomValues(new Uint8Array(12));
    this.#prefix = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** "connecting", "connected", "draining", "reconnecting", "lost" or "closed". */
  get state() {
    return this.#state;
  }

  /** Publishes that the broker has not confirmed yet, those that wait for their turn included. */
  get unconfirmed() {
    return this.#unconfirmed.size + this.#queue.length;
  }

  /**
   * Publishes a message. At QoS 1 it resolves when the broker has it in its log; a connection that
   * is lost meanwhile is replaced, and the message sent again, once. At QoS 0 it resolves when the
   * message was handed to the connection.
   *
   * Rejects with the `Refused` of the broker, and with ConnectionLost, ClientClosed or WindowFull.
   */
  async publish(topic, content, options = {}) {
    checkOptions(options, PUBLISH_OPTIONS);
    const qos = checkedQos(options.qos ?? 1);
    this.#check();
    this.#published += 1;
    const identified = qos ? { messageId: `${this.#prefix}-${this.#published}`, ...options } : options;
    const properties = messageProperties(identified);
    if (properties.length > 0xffff) {
      throw new RangeError("the properties of a message have at most 65535 bytes");
    }
    const head = [u8(qos), text(topic, "topic")];
    const bytes = properties.length
      ? frame(MESSAGE, 0, ...head, u16(properties.length), properties, body(content))
      : frame(PUBLISH, 0, ...head, body(content));
    if (bytes.length - 4 > LENGTH_MAX_PUBLISH) {
      throw new TooLarge(413, "message too large");
    }
    if (!qos && (this.#link === null || this.#link.draining)) {
      throw new ConnectionLost("there is no connection at the moment");
    }
    if (this.#queue.length >= QUEUED_MAX) {
      throw new WindowFull(`${QUEUED_MAX} publishes wait already`);
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ qos, bytes, resolve, reject });
      this.#pump();
    });
  }

  /**
   * Subscribes to a topic, or to a pattern such as `orders.*` or `orders.>`. Without `onMessage`
   * the messages are got by `for await (const message of subscription)`. With it, it is called
   * for one message after the other; a message that it leaves unsettled is accepted when it
   * returns, or its promise resolves, and is retried when it throws.
   *
   * Resolves when the broker has the subscription; rejects with its `Refused`.
   */
  async subscribe(topic, options = {}, onMessage = undefined) {
    checkOptions(options, SUBSCRIBE_OPTIONS);
    this.#check();
    const qos = checkedQos(options.qos ?? 1);
    const properties = [
      property(33, u32(whole(options.prefetch ?? 64, "prefetch", 2 ** 32, 1))),
    ];
    if (options.name !== undefined) {
      properties.push(textProperty(32, options.name, "name", 128));
    }
    if (options.start !== undefined) {
      properties.push(startProperty(options.start));
    }
    if (options.ackWaitMs !== undefined) {
      properties.push(property(35, u32(whole(options.ackWaitMs, "ackWaitMs", 2 ** 32))));
    }
    if (options.maxAttempts !== undefined) {
      properties.push(property(36, u16(whole(options.maxAttempts, "maxAttempts", 2 ** 16))));
    }
    if (options.pattern ?? isPattern(topic)) {
      properties.push(property(37, new Uint8Array()));
    }
    const settings = joined(properties);
    const request = joined([text(topic, "topic"), u8(qos), u16(settings.length), settings]);
    const subscription = new Subscription(this, topic, qos, options.name, request);
    this.#subscriptions.add(subscription);
    const link = this.#link;
    if (link !== null) {
      try {
        await this.#attach(link, subscription);
      } catch (error) {
        if (!(error instanceof ConnectionLost) || this.#state === "lost") {
          this.#subscriptions.delete(subscription);
          throw error;
        } // else it is attached when there is a connection again
      }
    }
    if (onMessage !== undefined) {
      this.#call(subscription, onMessage);
    }
    return subscription;
  }

  /** Resolves when the broker has looked at everything that was sent before. */
  async ping() {
    this.#check();
    if (this.#link === null) {
      throw new ConnectionLost("there is no connection at the moment");
    }
    await this.#link.request(PING, this.#id());
  }

  /**
   * Ends all subscriptions, waits for what was published and settled to arrive, and closes the
   * connection. Publishes that are not confirmed in that time reject with ClientClosed.
   */
  async close({ timeoutMs = 5_000 } = {}) {
    if (this.#state === "closed") {
      return;
    }
    for (const subscription of this.#subscriptions) {
      subscription._finish(null);
    }
    this.#subscriptions.clear();
    const arrived = (async () => {
      while (this.unconfirmed && this.#state !== "lost") {
        await new Promise((resolve) => this.#idle.push(resolve));
      }
      await this.#link?.request(PING, this.#id());
    })();
    let timer;
    const patience = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([arrived.catch(() => {}), patience]);
    clearTimeout(timer);
    const error = new ClientClosed("the client was closed");
    this.#become("closed");
    this.#fail(error);
    this.#link?.end(error);
  }

  // The connection

  async _open() {
    const link = await Link.open(
      this.#url, this.#key, this.#options.connectTimeoutMs ?? 10_000, this, () => this.#id(),
    );
    if (this.#state === "closed") {
      link.end(new ClientClosed("the client was closed"));
      return;
    }
    this.#link = link;
    for (const subscription of this.#subscriptions) {
      this.#attach(link, subscription).catch((error) => {
        if (!(error instanceof ConnectionLost)) {
          subscription._finish(error);
          this.#subscriptions.delete(subscription);
        }
      });
    }
    for (const entry of this.#unconfirmed.values()) {
      entry.postponed = false;
      link.send(entry.bytes);
    }
    this.#become(link.draining ? "draining" : "connected");
    this.#pump();
  }

  /** A link has ended: it is replaced, unless it was never used. */
  _ended(link, error) {
    if (link !== this.#link) {
      return;
    }
    this.#link = null;
    for (const subscription of this.#subscriptions) {
      subscription._lost();
    }
    if (this.#state === "closed") {
      return;
    }
    if (this.#options.reconnect === false) {
      this.#lose(error);
    } else {
      this.#become("reconnecting");
      this.#reconnect(error);
    }
  }

  async #reconnect(reason) {
    const until = Date.now() + (this.#options.reconnectTimeoutMs ?? Infinity);
    let backoff = BACKOFF_MIN_MS;
    while (this.#state === "reconnecting") {
      const pause = backoff * (0.5 + Math.random() / 2);
      if (Date.now() + pause > until) {
        this.#lose(reason);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
      backoff = Math.min(2 * backoff, BACKOFF_MAX_MS);
      if (this.#state !== "reconnecting") {
        return;
      }
      try {
        await this._open();
        return;
      } catch (error) {
        reason = error;
        if (error instanceof AuthenticationFailed || error instanceof UnsupportedVersion) {
          this.#lose(error);
          return;
        }
      }
    }
  }

  #lose(error) {
    this.#become("lost");
    this.#fail(error);
  }

  #fail(error) {
    for (const subscription of this.#subscriptions) {
      subscription._finish(error);
    }
    this.#subscriptions.clear();
    const waiting = [...this.#unconfirmed.values(), ...this.#queue];
    this.#unconfirmed.clear();
    this.#queue = [];
    for (const { reject } of waiting) {
      reject(error);
    }
    this.#rest();
  }

  _draining() {
    this.#become("draining");
  }

  #become(state) {
    if (this.#state !== state && this.#state !== "closed") {
      this.#state = state;
      this.dispatchEvent(new Event("statechange"));
    }
  }

  #check() {
    if (this.#state === "closed") {
      throw new ClientClosed("the client was closed");
    }
    if (this.#state === "lost") {
      throw new ConnectionLost("the connection was lost");
    }
  }

  #id() {
    const id = this.#nextId;
    this.#nextId += 1;
    return id;
  }

  // Publishing

  /** Sends what waits, in its order, as far as the window and the connection take it. */
  #pump() {
    const window = this.#options.maxUnconfirmed ?? 1_024;
    const link = this.#link;
    while (this.#queue.length && link !== null && link.usable && !link.draining && !link.busy) {
      const entry = this.#queue[0];
      if (entry.qos && this.#unconfirmed.size >= window) {
        return;
      }
      this.#queue.shift();
      const id = this.#id();
      view(entry.bytes).setBigUint64(5, BigInt(id));
      if (entry.qos) {
        this.#unconfirmed.set(id, entry);
      }
      link.send(entry.bytes);
      if (!entry.qos) {
        entry.resolve();
      }
    }
    this.#rest();
    if (this.#queue.length && link?.busy && this.#looking === null) {
      this.#looking = setTimeout(() => {
        this.#looking = null;
        this.#pump();
      }, BUFFERED_LOOK_MS);
    }
  }

  /** All that were sent up to this one are committed. */
  _confirmed(last) {
    for (const [id, { postponed, resolve }] of this.#unconfirmed) {
      if (BigInt(id) > last) {
        break;
      }
      if (!postponed) {
        this.#unconfirmed.delete(id);
        resolve();
      }
    }
    this.#pump();
  }

  _refused(id, error) {
    const number = Number(id);
    const entry = this.#unconfirmed.get(number);
    if (!entry) {
      const event = new Event("refused");
      event.error = error;
      this.dispatchEvent(event);
    } else if (error instanceof Unavailable && this.#link?.draining) {
      entry.postponed = true; // until the next connection
    } else {
      this.#unconfirmed.delete(number);
      entry.reject(error);
    }
    this.#pump();
  }

  /** Wakes who waits for all to be confirmed. */
  #rest() {
    if (!this.unconfirmed) {
      for (const resolve of this.#idle.splice(0)) {
        resolve();
      }
    }
  }

  // Subscriptions

  async #attach(link, subscription) {
    const attachment = await link.attach(this.#id(), subscription);
    if (!this.#subscriptions.has(subscription) && link.attached.delete(attachment)) {
      await link.request(DETACH, this.#id(), u64(attachment), u8(0)); // closed meanwhile
    }
  }

  async _detach(subscription, deleted) {
    this.#subscriptions.delete(subscription);
    const attachment = subscription._attachment;
    const link = this.#link;
    if (attachment !== null && link !== null) {
      link.flush();
      link.attached.delete(attachment);
      try {
        await link.request(DETACH, this.#id(), u64(attachment), u8(deleted ? 1 : 0));
      } catch (error) {
        if (deleted || !(error instanceof ConnectionLost)) {
          throw error;
        } // else it has ended with its connection
      }
    } else if (deleted) {
      throw new ConnectionLost("there is no connection at the moment");
    }
  }

  _forget(subscription) {
    this.#subscriptions.delete(subscription);
  }

  async #call(subscription, onMessage) {
    try {
      for await (const message of subscription) {
        try {
          await onMessage(message);
          if (!message.settled) {
            message.accept();
          }
        } catch (error) {
          if (!message.settled) {
            message.retry();
          }
          report(error);
        }
      }
    } catch (error) {
      if (!(error instanceof ClientClosed)) {
        report(error);
      }
    }
  }
}

/**
 * Connects to a broker: `ws://HOST:PORT/` or `wss://`, and an API key.
 *
 * Resolves with a Client when the broker has accepted the key; rejects with AuthenticationFailed
 * when it does not know it, with ConnectionLost when it cannot be reached.
 */
export async function connect(url, options) {
  checkOptions(options, CONNECT_OPTIONS);
  text(options.apiKey, "apiKey");
  const client = new Client(url, options);
  await client._open();
  return client;
}
