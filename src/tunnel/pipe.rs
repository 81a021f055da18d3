//! Copies bytes both ways between two connections, until both directions have ended.
//!
//! The directions end independently, so half-closed connections work. Nothing is read from one side until the other
//! side has accepted everything read before, so a slow reader slows down only its writer. An idle tunnel holds no
//! buffer: reads use a buffer of the thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use pmd_epmd::counters::Counter;

/// Maximum number of bytes per read.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes that were read but not yet written, from the index `from` on.
    rest: Vec<u8>,
    from: usize,
    ended: bool,
    closed: bool,
    bytes: u64,
}

impl Flow {
    fn new(early: Vec<u8>) -> Flow {
        Flow { rest: early, ..Flow::default() }
    }

    /// Copies as much as possible; ready when the end of the stream has been forwarded.
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        total: &Counter,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.closed {
            if self.from < self.rest.len() {
                let rest = self.rest.get(self.from..).unwrap_or_default();
                let written = ready!(Pin::new(&mut *to).poll_write(context, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.count(written, total);
                self.from += written;
                if self.from == self.rest.len() {
                    (self.rest, self.from) = (Vec::new(), 0);
                }
            } else if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.closed = true;
            } else if let Poll::Ready(moved) =
                SCRATCH.with_borrow_mut(|scratch| self.read(context, from, to, total, scratch))
            {
                moved?;
            } else {
                // TLS may hold encrypted bytes, which must be sent before this waits for more.
                ready!(Pin::new(&mut *to).poll_flush(context))?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        total: &Counter,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.count(written, total);
        self.rest = read.get(written..).unwrap_or_default().to_vec();
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, bytes: usize, total: &Counter) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes += bytes;
        total.add_many(bytes);
    }
}

/// Joins two connections; `early` was already read from them. Returns when both directions have ended.
///
/// # Errors
///
/// If one of the connections fails; bytes in transit are lost then.
pub async fn join<A, B>(a: &mut A, b: &mut B, early: (Vec<u8>, Vec<u8>), total: &Counter) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut out, mut back) = (Flow::new(early.0), Flow::new(early.1));
    std::future::poll_fn(|context| {
        let there = out.poll(context, a, b, total)?;
        let here = back.poll(context, b, a, total)?;
        if there.is_ready() && here.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_directions_end_independently() {
        let (mut left, mut a) = duplex(24);
        let (mut b, mut right) = duplex(24);
        let total = Counter::default();
        let joined = join(&mut a, &mut b, (Vec::new(), b"early ".to_vec()), &total);
        let talk = async {
            left.write_all(b"question").await?;
            left.shutdown().await?;
            let mut question = String::new();
            right.read_to_string(&mut question).await?;
            assert_eq!(question, "question");
            right.write_all(b"a long answer, longer than what fits").await?;
            right.shutdown().await?;
            let mut answer = String::new();
            left.read_to_string(&mut answer).await?;
            assert_eq!(answer, "early a long answer, longer than what fits");
            io::Result::Ok(())
        };
        let (joined, talked) = tokio::join!(joined, talk);
        joined.expect("both have ended");
        talked.expect("both were received");
        assert_eq!(total.get(), 8 + 6 + 36);
    }

    #[tokio::test]
    async fn bytes_are_read_only_when_the_others_are_written() {
        let (mut left, mut a) = duplex(1_000);
        let (mut b, right) = duplex(10);
        let total = Counter::default();
        left.write_all(&[7; 1_000]).await.expect("there is room");
        let mut joined = Box::pin(join(&mut a, &mut b, Default::default(), &total));
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut joined).is_pending());
        }
        assert_eq!(total.get(), 10, "only as much as the other side has room for");
        drop(right);
        assert!(joined.await.is_err());
    }
}
