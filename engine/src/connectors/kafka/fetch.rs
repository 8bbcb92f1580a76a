//! Batch consumption: the one place that calls the C library directly.
//!
//! `rd_kafka_consume_batch_queue` hands out many messages for one call and one lock; the safe wrapper
//! polls one event a message, at about twice the CPU. What must always hold: a message is lent to the
//! visitor only, and destroyed right after; the queue handle goes before the consumer it belongs to.
//!
//! ```text
//!  librdkafka's fetch queue ─ one call ─▶ [*msg, *msg, …] ─ visit ─▶ copied into Records ─▶ destroyed
//! ```
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka_sys as sys;

use super::client::QuietConsumer;
use crate::error::{Error, Result};

/// A consumer whose assigned partitions are read in batches.
pub(super) struct BatchQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    consumer: QuietConsumer,
}

// SAFETY: the queue handle is a reference-counted object of librdkafka, which is thread safe, and `slots`
// holds no live message between calls: nothing in here is tied to the thread that made it.
unsafe impl Send for BatchQueue {}

impl BatchQueue {
    /// Takes over `consumer`, which must have a group (so that it has a consumer queue).
    ///
    /// # Errors
    /// Internal: the consumer has no group.
    pub(super) fn new(consumer: QuietConsumer) -> Result<Self> {
        // SAFETY: the client pointer is valid while `consumer` lives; the answer is a new reference, which
        // `drop` gives back.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| Error::internal("a Kafka consumer without a group has no queue"))?;
        Ok(Self { queue, slots: Vec::new(), consumer })
    }

    /// The consumer, for assignments and questions.
    pub(super) fn consumer(&self) -> &QuietConsumer {
        &self.consumer
    }

    /// Visits at most `most` messages, in order within each partition; waits at most `wait` for that many.
    /// Answers how many there were.
    pub(super) fn consume(&mut self, most: usize, wait: Duration, mut visit: impl FnMut(&Message<'_>)) -> usize {
        self.slots.clear();
        self.slots.resize(most, std::ptr::null_mut());
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `queue` is a live reference and `slots` has room for `most` pointers; the library writes
        // as many as it answers, each owned by us from then on.
        let got = unsafe { sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), millis, self.slots.as_mut_ptr(), most) };
        let got = usize::try_from(got).unwrap_or(0);
        let mut lent = Lent { slots: &self.slots[..got], next: 0 };
        while let Some(raw) = lent.peek() {
            // SAFETY: `raw` was just handed to us, is not null, and is destroyed only by `lent` below; the
            // reference does not outlive this turn of the loop.
            visit(&Message { raw: unsafe { &*raw } });
            lent.destroy();
        }
        got
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`, given back once; `consumer` is dropped after this.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Messages that we own, each destroyed exactly once, also when a visitor panics.
struct Lent<'a> {
    slots: &'a [*mut sys::rd_kafka_message_t],
    next: usize,
}

impl Lent<'_> {
    fn peek(&self) -> Option<*mut sys::rd_kafka_message_t> {
        self.slots.get(self.next).copied()
    }

    fn destroy(&mut self) {
        let raw = self.slots[self.next];
        self.next += 1;
        // SAFETY: ours by `rd_kafka_consume_batch_queue`, and `next` has moved on: never again.
        unsafe { sys::rd_kafka_message_destroy(raw) }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        while self.next < self.slots.len() {
            self.destroy();
        }
    }
}

/// A message, or what the library reports of a partition in its place.
pub(super) struct Message<'a> {
    raw: &'a sys::rd_kafka_message_t,
}

impl Message<'_> {
    /// Tells topics apart without comparing names; valid while partitions of the topic are assigned.
    pub(super) fn topic_mark(&self) -> usize {
        self.raw.rkt as usize
    }

    /// The topic's name; empty where a report concerns no topic.
    pub(super) fn topic(&self) -> &str {
        if self.raw.rkt.is_null() {
            return "";
        }
        // SAFETY: the topic handle of a live message is valid, and so is its NUL-terminated name.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw.rkt)) };
        name.to_str().unwrap_or("")
    }

    pub(super) fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// Offset of the message; of a partition's end, the position behind it.
    pub(super) fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// `None`: a message. Otherwise what the library reports.
    pub(super) fn report(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self.raw.err.into())
    }

    /// The value; of a report, its text.
    pub(super) fn value(&self) -> Option<&[u8]> {
        // SAFETY: payload and length describe bytes owned by the message, which outlives `&self`.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        // SAFETY: as for the value.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// Timestamp in ms (-1: none) and its type (0 none, 1 create time, 2 log append time).
    pub(super) fn timestamp(&self) -> (i64, i8) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a live message and a place for the answer.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        let kind = match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => 0,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => 1,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => 2,
        };
        (millis, kind)
    }

    /// Leader epoch, -1 if unknown.
    pub(super) fn leader_epoch(&self) -> i32 {
        // SAFETY: a live message.
        unsafe { sys::rd_kafka_message_leader_epoch(self.raw) }
    }

    /// Headers in order; a header without a value has an empty one.
    pub(super) fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let mut list = std::ptr::null_mut();
        // SAFETY: a live message and a place for the answer; the list stays the message's.
        let err = unsafe { sys::rd_kafka_message_headers(self.raw, &mut list) };
        let mut out = Vec::new();
        if err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return out;
        }
        loop {
            let (mut name, mut value, mut size) = (std::ptr::null::<c_char>(), std::ptr::null::<c_void>(), 0);
            // SAFETY: `list` is valid while the message is; the three answers point into it.
            let err = unsafe { sys::rd_kafka_header_get_all(list, out.len(), &mut name, &mut value, &mut size) };
            if err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return out;
            }
            // SAFETY: a found header has a NUL-terminated name and `size` bytes of value.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, size)) };
            out.push((name.to_string_lossy().into_owned(), value.unwrap_or_default().to_vec()));
        }
    }
}

/// `None` for a null pointer: an absent key or value.
///
/// # Safety
/// Where `start` is not null, `size` bytes are readable there for `'a`.
unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size) })
}
