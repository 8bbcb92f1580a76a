//! Barriers are aligned: a task sees nothing of what follows a barrier before every lane has delivered it.

use std::sync::Arc;

use velosql::runtime::channel::{LaneSender, lane};
use velosql::runtime::inputs::Inputs;
use velosql::stream::{Barrier, Epoch, Message, StreamBatch, Watermark};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

fn batch(n: i64) -> Message {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![n]));
    Message::Batch(StreamBatch::new(RecordBatch::try_from_iter([("n", column)]).expect("one column")))
}

fn barrier(epoch: u64) -> Message {
    Message::Barrier(Barrier { epoch: Epoch(epoch), last: false })
}

fn send(lane: &LaneSender, messages: Vec<Message>) {
    messages.into_iter().for_each(|m| lane.try_send(m).expect("there is room"));
}

type Lanes = (LaneSender, LaneSender, Inputs);

/// Two lanes of one input, or of two.
fn two_lanes(inputs: usize) -> Lanes {
    let ((left, l), (right, r)) = (lane(1 << 20, Arc::default(), Arc::default()), lane(1 << 20, Arc::default(), Arc::default()));
    let receivers = if inputs == 1 { vec![vec![l, r]] } else { vec![vec![l], vec![r]] };
    (left, right, Inputs::new(receivers, Watermark::MIN))
}

/// What comes out until nothing more can be read: `3` a row, `|1|` a barrier, `W5` a watermark.
fn drained(inputs: &mut Inputs) -> String {
    let mut out = Vec::new();
    while let Some(message) = inputs.poll() {
        out.push(match message {
            Message::Batch(b) => b.rows.column(0).as_any().downcast_ref::<Int64Array>().expect("Int64").value(0).to_string(),
            Message::Barrier(b) => format!("|{}|", b.epoch.0),
            Message::Watermark(w) => format!("W{}", w.0),
            Message::Idle => "idle".into(),
            Message::End => "end".into(),
        });
    }
    out.join(" ")
}

#[test]
fn what_follows_a_barrier_waits_for_the_barrier_of_every_lane() {
    let (left, right, mut inputs) = two_lanes(1);
    send(&left, vec![batch(1), barrier(1), batch(2), Message::Watermark(Watermark(9))]);
    send(&right, vec![batch(10)]);
    assert_eq!(drained(&mut inputs), "1 10", "2 follows barrier 1, which the right lane has not delivered");
    send(&right, vec![batch(11), Message::Watermark(Watermark(5)), barrier(1), batch(12)]);
    let out = drained(&mut inputs);
    let (before, after) = out.split_once("|1|").expect("the barrier");
    assert_eq!(before.trim(), "11", "time moves only where both lanes do");
    assert!(after.contains('2') && after.contains("12") && after.contains("W5"), "{out}");
}

#[test]
fn an_ended_lane_counts_as_aligned() {
    let (left, right, mut inputs) = two_lanes(1);
    send(&left, vec![Message::End]);
    send(&right, vec![barrier(7), batch(1), Message::End]);
    assert_eq!(drained(&mut inputs), "|7| 1 end");
}

fn watermark(ms: i64) -> Message {
    Message::Watermark(Watermark(ms))
}

#[test]
fn a_lane_of_an_input_that_is_active_again_counts_although_it_has_not_said_so() {
    let (left, right, mut inputs) = two_lanes(1);
    send(&left, vec![watermark(1), Message::Idle]);
    send(&right, vec![watermark(1), Message::Idle]);
    assert_eq!(drained(&mut inputs), "W1 idle");
    // The left worker still holds rows of the time up to 9.
    send(&right, vec![watermark(9)]);
    assert_eq!(drained(&mut inputs), "W1");
    send(&left, vec![batch(3), watermark(9)]);
    assert_eq!(drained(&mut inputs), "3 W9");
}

#[test]
fn an_idle_input_does_not_hold_the_other_one_back() {
    let (left, right, mut inputs) = two_lanes(2);
    send(&left, vec![watermark(1)]);
    send(&right, vec![watermark(9)]);
    assert_eq!(drained(&mut inputs), "W1");
    send(&left, vec![Message::Idle]);
    assert_eq!(drained(&mut inputs), "W9");
}

#[test]
fn when_all_inputs_fall_silent_time_moves_to_the_furthest() {
    let (left, right, mut inputs) = two_lanes(2);
    send(&left, vec![watermark(1)]);
    send(&right, vec![watermark(9), Message::Idle]);
    assert_eq!(drained(&mut inputs), "W1");
    send(&left, vec![Message::Idle]);
    assert_eq!(drained(&mut inputs), "W9 idle");
    // A row of the one behind comes late, and time does not go back.
    send(&left, vec![batch(3), watermark(2)]);
    assert_eq!(drained(&mut inputs), "3");
}
