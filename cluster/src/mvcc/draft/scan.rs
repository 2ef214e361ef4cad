//! Reading a range as a command sees it: its own changes above what lies below.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::Draft;
use crate::{
    mvcc::record::{Record, RecordError},
    ports::engine::{EngineError, Tree, is_void},
};

impl Draft<'_> {
    /// Visits the newest version of each key between the bounds, in order,
    /// this command's own changes included; `Break` ends the walk.
    ///
    /// # Errors
    /// Those of the engine, and damage of a record.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if is_void(from, to) {
            return Ok(());
        }
        let mut fault: Option<RecordError> = None;
        let mut show = |key: &[u8], bytes: &[u8]| match Record::read(key, bytes) {
            Ok(record) if record.head.kind.exists() => visit(key, &record),
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        };
        let mut ours = self.latest.range::<[u8], _>((from, to)).peekable();
        let mut ended = false;
        let below = &self.below;
        below.overlay.scan(below.view, Tree::Latest, from, to, &mut |key, bytes| {
            let mut shown = ControlFlow::Continue(());
            let mut hidden = false;
            while shown.is_continue()
                && let Some((our_key, ours)) = ours.next_if(|(our_key, _)| &our_key[..] <= key)
            {
                hidden = our_key == key;
                shown = show_ours(our_key, ours.as_ref(), &mut show);
            }
            if shown.is_continue() && !hidden {
                shown = show(key, bytes);
            }
            ended = shown.is_break();
            shown
        })?;
        while !ended && let Some((key, value)) = ours.next() {
            ended = show_ours(key, value.as_ref(), &mut show).is_break();
        }
        fault.map_or(Ok(()), |error| Err(below.damaged(error)))
    }
}

fn show_ours(
    key: &[u8],
    value: Option<&Bytes>,
    show: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    value.map_or(ControlFlow::Continue(()), |bytes| show(key, bytes))
}
