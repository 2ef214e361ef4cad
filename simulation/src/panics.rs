//! Panics inside a world are findings: ractor and tokio would swallow them.

use std::{cell::RefCell, panic, sync::Once};

use crate::hooks;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes panics of this thread from now on.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if hooks::is_seeded() {
                SEEN.with(|seen| seen.borrow_mut().push(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
    SEEN.with(|seen| seen.borrow_mut().clear());
}

/// The panics since the last call, if any.
pub(crate) fn take() -> Option<String> {
    SEEN.with(|seen| {
        let seen = std::mem::take(&mut *seen.borrow_mut());
        (!seen.is_empty()).then(|| seen.join("; "))
    })
}
