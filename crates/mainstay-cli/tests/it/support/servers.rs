//! The servers that a shared store may lie on.

#[cfg(any(feature = "mysql", feature = "postgres"))]
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[cfg(feature = "redis")]
use super::redis;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use super::sql;

/// A running server of one kind, and a store's name on it that nobody else uses.
pub(crate) struct SharedStore {
    server: Server,
    name: String,
}

enum Server {
    #[cfg(feature = "redis")]
    Redis(redis::Server),
    /// Tests that run at the same time share it.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    Sql(Arc<sql::Server>),
}

impl SharedStore {
    #[cfg(feature = "redis")]
    pub(crate) fn redis() -> Self {
        Self::on(Server::Redis(redis::Server::start()))
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn postgres() -> Self {
        Self::on(Server::Sql(sql::Server::shared(&sql::POSTGRES)))
    }

    #[cfg(feature = "mysql")]
    pub(crate) fn mariadb() -> Self {
        Self::on(Server::Sql(sql::Server::shared(&sql::MARIADB)))
    }

    fn on(server: Server) -> Self {
        static STORES: AtomicU32 = AtomicU32::new(0);
        let name = format!("s{}", STORES.fetch_add(1, Relaxed));
        Self { server, name }
    }

    /// What `--store` takes.
    pub(crate) fn url(&self) -> String {
        let name = &self.name;
        match &self.server {
            #[cfg(feature = "redis")]
            Server::Redis(server) => server.url(&format!("?name={name}")),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Server::Sql(server) => server.url(&format!("name={name}")),
        }
    }
}

/// The test `$test` of this module on each kind of server, a module for each.
macro_rules! on_each_server {
    ($($test:ident),+ $(,)?) => {
        $crate::support::servers::on_each_server! { @on "redis" redis; $($test)+ }
        $crate::support::servers::on_each_server! { @on "postgres" postgres; $($test)+ }
        $crate::support::servers::on_each_server! { @on "mysql" mariadb; $($test)+ }
    };
    (@on $feature:literal $server:ident; $($test:ident)+) => {
        #[cfg(feature = $feature)]
        mod $server {
            $(
                #[test]
                fn $test() {
                    super::$test($crate::support::servers::SharedStore::$server());
                }
            )+
        }
    };
}

pub(crate) use on_each_server;
