//! A connection, with TLS if the URL asks for it.

use tokio_postgres::{Client, Error, NoTls};

use super::Postgres;
use crate::remote::Crew;

impl Postgres {
    pub(super) async fn open(&self, crew: &Crew) -> Result<Client, Error> {
        // A connection ends with its client; what went wrong reaches those who wait for an answer.
        #[cfg(feature = "postgres-tls")]
        if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await?;
            crew.add(async move { drop(connection.await) });
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        crew.add(async move { drop(connection.await) });
        Ok(client)
    }
}
