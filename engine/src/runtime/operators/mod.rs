//! Operators: plain functions over messages, run inside a task's chain.
//!
//! An operator gets one message at a time and writes what follows into [`Out`]. It never blocks, never
//! looks at a clock and knows nothing of lanes. At a barrier it hands out its state as segments; the chain
//! forwards the barrier after that.

pub mod calc;
pub mod group_aggregate;
pub mod limit;
pub mod predict;
pub mod static_join;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_head;
pub mod window_intake;

use crate::error::Result;
use crate::runtime::checkpoint::Snapshot;
use crate::stream::{Barrier, Message, StreamBatch, Watermark};

/// What an operator emits, in order.
#[derive(Debug, Default)]
pub struct Out(pub Vec<Message>);

impl Out {
    /// Emits rows; batches without rows pass only where their place in an order must be known.
    pub fn batch(&mut self, batch: StreamBatch) {
        if batch.num_rows() > 0 || batch.seq.is_some() {
            self.0.push(Message::Batch(batch));
        }
    }

    /// Emits a watermark.
    pub fn watermark(&mut self, watermark: Watermark) {
        self.0.push(Message::Watermark(watermark));
    }
}

/// One operator instance of one worker.
pub trait Operator: Send {
    /// Takes rows.
    ///
    /// # Errors
    /// Data: a value that an expression refuses. Internal: a broken invariant.
    fn batch(&mut self, batch: StreamBatch, out: &mut Out) -> Result<()>;

    /// The watermark has moved. By default it passes.
    ///
    /// # Errors
    /// As for [`Operator::batch`].
    fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<()> {
        out.watermark(watermark);
        Ok(())
    }

    /// A barrier: what is held back is emitted to `out`, state is added to `snapshot`.
    ///
    /// # Errors
    /// As for [`Operator::batch`].
    fn barrier(&mut self, _barrier: Barrier, _snapshot: &mut Snapshot, _out: &mut Out) -> Result<()> {
        Ok(())
    }

    /// Whether its watermark is state even where no segment is left: it says which windows have been emitted.
    fn keeps_time(&self) -> bool {
        false
    }

    /// Bytes of state held.
    fn state_bytes(&self) -> usize {
        0
    }
}
