//! Statements that are sent one after another without waiting for the answers in between.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Starts all of them in this order, which is the order in which the client sends what they say, and
/// waits for all.
pub(super) async fn in_order<A, B, T>(
    first: impl Future<Output = A>,
    between: impl Iterator<Item = impl Future<Output = T>>,
    last: impl Future<Output = B>,
) -> (A, Vec<T>, B) {
    let (mut first, mut last) = (Running::new(first), Running::new(last));
    let mut between: Vec<_> = between.map(Running::new).collect();
    poll_fn(|cx| {
        let mut ready = first.poll(cx);
        for one in &mut between {
            ready &= one.poll(cx);
        }
        ready &= last.poll(cx);
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let between = between.into_iter().map(Running::result);
    (first.result(), between.collect(), last.result())
}

/// A future, or what came of it.
enum Running<F: Future> {
    Future(Pin<Box<F>>),
    Done(F::Output),
}

impl<F: Future> Running<F> {
    fn new(future: F) -> Self {
        Self::Future(Box::pin(future))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Future(future) = self
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            *self = Self::Done(result);
        }
        matches!(self, Self::Done(_))
    }

    fn result(self) -> F::Output {
        match self {
            Self::Done(result) => result,
            Self::Future(_) => unreachable!("it was polled until it was done"),
        }
    }
}
