//! How the connection is opened.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::redis::link::{Connection, Link};
use crate::redis::url::Target;

/// Commands that wait for the connection's writer. The store bounds its operations itself.
const BUFFER: usize = 1_024;

/// What a connection has in the crew ends with the last of these.
pub(crate) type Held = Option<Arc<oneshot::Sender<()>>>;

impl Link {
    pub(super) async fn open(&self) -> Result<Connection, RedisError> {
        match &self.config.target {
            Target::Server(url) => {
                let info = url.as_str().into_connection_info()?;
                let info = info.set_tcp_settings(tcp_settings());
                self.open_single(&Client::open(info)?).await
            }
            #[cfg(feature = "redis-sentinel")]
            Target::Sentinel { .. } => self.open_by_sentinel().await,
            #[cfg(feature = "redis-cluster")]
            Target::Cluster(nodes) => {
                let timeout = self.config.timeout;
                let client = redis::cluster::ClusterClient::builder(nodes.clone())
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .tcp_settings(tcp_settings())
                    .build()?;
                let connection = client.get_async_connection().await?;
                Ok(Connection::Cluster(connection))
            }
        }
    }

    async fn open_single(&self, client: &Client) -> Result<Connection, RedisError> {
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.timeout))
            .set_response_timeout(Some(self.attempt_time()))
            .set_pipeline_buffer_size(BUFFER);
        match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = open_tcp(host, *port, self.config.timeout).await?;
                self.open_on(stream, client, options).await
            }
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                self.open_on(stream, client, options).await
            }
            // TLS is the client's, and so is the task that it takes.
            _ => {
                let opened = client.get_multiplexed_async_connection_with_config(&options);
                opened.await.map(|opened| Connection::Single(opened, None))
            }
        }
    }

    async fn open_on<S>(
        &self,
        stream: S,
        client: &Client,
        options: AsyncConnectionConfig,
    ) -> Result<Connection, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let info = client.get_connection_info().redis_settings();
        let opened = MultiplexedConnection::new_with_config(info, stream, options);
        let (connection, driver) = opened.await?;
        let (held, given_up) = oneshot::channel();
        self.crew.add(until(driver, given_up));
        Ok(Connection::Single(connection, Some(Arc::new(held))))
    }

    /// Asks the sentinels again each time: the master may be another one now.
    #[cfg(feature = "redis-sentinel")]
    async fn open_by_sentinel(&self) -> Result<Connection, RedisError> {
        use redis::sentinel::{SentinelClientBuilder, SentinelServerType};

        let Target::Sentinel {
            nodes,
            master,
            db,
            username,
            password,
        } = &self.config.target
        else {
            unreachable!("asked for by this target alone")
        };
        let mut addresses = Vec::new();
        for node in nodes {
            addresses.push(node.as_str().into_connection_info()?.addr().clone());
        }
        let mut client =
            SentinelClientBuilder::new(addresses, master.clone(), SentinelServerType::Master)?
                .set_client_to_redis_db(*db);
        if let Some(username) = username {
            client = client.set_client_to_redis_username(username);
        }
        if let Some(password) = password {
            client = client.set_client_to_redis_password(password);
        }
        let master = client.build()?.async_get_client().await?;
        self.open_single(&master).await
    }
}

/// A pipeline goes out although the answers to the one before it are not there yet.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Tries the host's addresses one after the other.
async fn open_tcp(host: &str, port: u16, timeout_all: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in &addresses {
        let time = timeout_all / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        match timeout(time, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(late) => last = late.into(),
        }
    }
    Err(last)
}

/// Polls `work` until it is done or given up.
async fn until(work: impl Future<Output = ()>, mut given_up: oneshot::Receiver<()>) {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if pin!(&mut given_up).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        work.as_mut().poll(cx)
    })
    .await;
}
