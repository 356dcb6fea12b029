//! A connection read at a bounded pace. What an agent says is small; a flood of PING, SETTINGS, RST_STREAM, WINDOW_UPDATE
//! or CONTINUATION frames, whatever comes next of that kind, waits in the peer's own buffers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How much is read, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct ReadRate {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes at once.
    pub burst: u64,
}

/// How long a reader that was too fast waits for its next bytes.
const PAUSE: Duration = Duration::from_millis(50);

/// A stream whose reads are paced.
#[derive(Debug)]
pub struct ThrottledIo<S> {
    inner: S,
    rate: ReadRate,
    /// Negative: more was read than had been earned.
    left: i64,
    counted: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> ThrottledIo<S> {
    /// Paces `inner` from now on.
    #[must_use]
    pub fn new(inner: S, rate: ReadRate) -> Self {
        Self { inner, rate, left: signed(rate.burst), counted: Instant::now(), pause: None }
    }

    fn earn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted);
        let earned = elapsed.as_millis().saturating_mul(u128::from(self.rate.bytes_per_second)) / 1000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(earned).min(signed(self.rate.burst));
            self.counted = now;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ThrottledIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            this.earn(Instant::now());
            if this.left > 0 {
                break;
            }
            this.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let read = i64::try_from(buffer.filled().len().saturating_sub(before)).unwrap_or(i64::MAX);
        this.left = this.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ThrottledIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::{ReadRate, ThrottledIo};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_read_at_once_and_a_flood_at_the_pace() {
        let (mut writer, reader) = tokio::io::duplex(1000);
        tokio::spawn(async move { writer.write_all(&[0; 20_000]).await });
        let mut reader = ThrottledIo::new(reader, ReadRate { bytes_per_second: 1000, burst: 5000 });
        let begin = Instant::now();
        let mut read = 0;
        while read < 5000 {
            read += reader.read(&mut [0; 1000]).await.expect("bytes");
        }
        assert_eq!(begin.elapsed().as_millis(), 0);
        while read < 20_000 {
            read += reader.read(&mut [0; 1000]).await.expect("bytes");
        }
        assert_eq!(begin.elapsed().as_secs(), 14, "the last read may go beyond what was left by its buffer");
    }
}
