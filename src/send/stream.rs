//! A connection, encrypted or not.

use std::io;
#[cfg(feature = "tls")]
use std::io::{ErrorKind, Read, Write};

use super::connection::{Connection, Received};
use super::endpoint::Endpoint;

/// Whom an encrypted stream trusts.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    #[cfg(feature = "tls")]
    pub(crate) config: Option<std::sync::Arc<rustls::ClientConfig>>,
}

pub(super) struct Stream {
    connection: Connection,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
}

impl Stream {
    /// Begins to encrypt where the endpoint asks for that.
    pub(super) fn open(
        connection: Connection,
        endpoint: &Endpoint,
        trust: &Trust,
    ) -> io::Result<Self> {
        #[cfg(feature = "tls")]
        let connect = || {
            let config = trust.config.as_ref().ok_or(ErrorKind::Unsupported)?;
            super::tls::connect(config, &endpoint.host).map(Box::new)
        };
        let _ = (endpoint, trust);
        Ok(Stream {
            connection,
            #[cfg(feature = "tls")]
            tls: endpoint.is_tls().then(connect).transpose()?,
        })
    }

    /// How many of the bytes were taken, 0 when none are taken now, and how many bytes the kernel
    /// took, encrypted or not. With no bytes, goes on with what was taken before and is not on its
    /// way yet.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<(usize, usize)> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            let taken = tls.writer().write(bytes)?;
            return Ok((taken, self.flush()?));
        }
        let taken = if bytes.is_empty() { 0 } else { self.connection.write(bytes)? };
        Ok((taken, taken))
    }

    /// Whether there are bytes that were taken and that the kernel has not.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, reason = "it keeps none"))]
    pub(super) fn is_behind(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Reads once. [`PermissionDenied`](io::ErrorKind) says that the server is not trusted, and
    /// why.
    pub(super) fn read(
        &mut self,
        mut on_bytes: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Received> {
        let mut result = Ok(());
        let received = self.connection.read(|bytes| {
            #[cfg(feature = "tls")]
            if let Some(tls) = &mut self.tls {
                result = decrypt(tls, bytes, &mut on_bytes);
                return;
            }
            result = on_bytes(bytes);
        })?;
        #[cfg(feature = "tls")]
        if result.is_err() {
            // It tells the server why.
            let _ = self.flush();
        }
        result.map(|()| received)
    }

    /// Says that nothing more will be written, and gives the connection back.
    #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "nothing is left to write"))]
    pub(super) fn close(mut self) -> Connection {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // A connection that is gone takes it no more.
            let _ = self.flush();
        }
        self.connection
    }

    /// Hands what is encrypted to the kernel; returns how many bytes it took.
    #[cfg(feature = "tls")]
    fn flush(&mut self) -> io::Result<usize> {
        /// Takes what the connection takes now.
        struct Sink<'a>(&'a mut Connection);
        impl Write for Sink<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.0.write(bytes)? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    taken => Ok(taken),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut all = 0;
        let Some(tls) = &mut self.tls else { return Ok(all) };
        while tls.wants_write() {
            match tls.write_tls(&mut Sink(&mut self.connection)) {
                Ok(taken) => all += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// Hands on what the bytes hold.
#[cfg(feature = "tls")]
fn decrypt(
    tls: &mut rustls::ClientConnection,
    mut bytes: &[u8],
    on_bytes: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    // It takes none when the server has said its last, and none at all for the end of the stream.
    while !bytes.is_empty() && tls.read_tls(&mut bytes)? > 0 {
        let state = tls.process_new_packets().map_err(super::tls::error)?;
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        tls.reader().read_exact(&mut plain)?;
        if !plain.is_empty() {
            on_bytes(&plain)?;
        }
    }
    Ok(())
}
