//! A backend's public type is its own, and a registry as [`Backend`](crate::Backend) is one.

/// Implements [`Registry`](plimsoll_discovery_api::Registry) for a tuple struct whose field `0` is
/// a [`Backend`](crate::Backend), by passing every call on to it. The caller depends on
/// `async-trait` and `plimsoll-discovery-api`.
#[macro_export]
macro_rules! delegate_registry {
    ($registry:ty) => {
        #[::async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl ::plimsoll_discovery_api::Registry for $registry {
            fn capabilities(&self) -> ::plimsoll_discovery_api::Capabilities {
                self.0.capabilities()
            }

            async fn register(
                &self,
                instance: ::plimsoll_discovery_api::Instance,
            ) -> ::plimsoll_discovery_api::Result<::plimsoll_discovery_api::Registration> {
                self.0.register(instance).await
            }

            async fn watch(
                &self,
                service: &::plimsoll_discovery_api::ServiceName,
            ) -> ::plimsoll_discovery_api::Result<::plimsoll_discovery_api::Watch> {
                self.0.watch(service).await
            }

            async fn watch_members(
                &self,
                service: &::plimsoll_discovery_api::ServiceName,
            ) -> ::plimsoll_discovery_api::Result<::plimsoll_discovery_api::Watch> {
                self.0.watch_members(service).await
            }

            async fn list(
                &self,
                service: &::plimsoll_discovery_api::ServiceName,
            ) -> ::plimsoll_discovery_api::Result<::plimsoll_discovery_api::Snapshot> {
                self.0.list(service).await
            }

            async fn services(
                &self,
            ) -> ::plimsoll_discovery_api::Result<
                ::std::vec::Vec<::plimsoll_discovery_api::ServiceName>,
            > {
                self.0.services().await
            }
        }
    };
}
