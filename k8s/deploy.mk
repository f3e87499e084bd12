# Kubernetes, for the Makefile: each target prints the kubectl lines that it runs. k8s/README.md says which for what.
OVERLAY ?= production
# How the demo's image gets into a local cluster; with minikube: LOAD="minikube image load".
LOAD ?= kind load docker-image

need = $(if $($(1)),,$(error $(1) is missing: $(2)))
quoted = '$(subst ','\'',$(1))'

# The Service finds a pod that serves in every overlay; the Deployment would not with Argo Rollouts, and between two
# canaries of Flagger. Nobody has a name in a pod: the history of the split gets the one of whoever runs this.
SPLIT := kubectl -n rollout exec svc/rollout -c rollout -- env LOGNAME=$(USER) rollout split

deploy: ## Apply k8s/overlays/OVERLAY (production); OVERLAY=local builds the demo and loads it into kind first
	$(if $(wildcard k8s/overlays/$(OVERLAY)),,$(error there is no k8s/overlays/$(OVERLAY)))
ifeq ($(OVERLAY),local)
	docker build --build-arg PIP_EXTRA_INDEX_URL --target demo -t rollout:demo .
	$(LOAD) rollout:demo
endif
	kubectl -n rollout delete job/first-split --ignore-not-found
	kubectl apply -k k8s/overlays/$(OVERLAY)

canary: ## Put a version on trial, MODEL=digits VERSION=v2 SHARE=5%; ramp it, MODEL=digits SHARE=20%; or an image, IMAGE=…
promote: ## Make the challenger champion, MODEL=digits; without MODEL, let Argo Rollouts go on with the image
rollback: ## Send everybody back at once, MODEL=digits WHY="…"; without MODEL, take the image back

ifdef MODEL

canary:
	$(if $(IMAGE),$(error a version (MODEL) or an image (IMAGE), one at a time))
	$(call need,SHARE,which share of the clients gets the challenger? SHARE=5%)
ifdef VERSION
	$(SPLIT) set $(MODEL) --challenger $(VERSION) --share $(SHARE) --why $(call quoted,$(WHY)) --yes
else
	$(SPLIT) ramp $(MODEL) $(SHARE) --why $(call quoted,$(WHY)) --yes
endif

promote:
	$(SPLIT) promote $(MODEL) --why $(call quoted,$(WHY)) --yes

rollback:
	$(call need,WHY,the history and the quarantine keep it; WHY="fails on zeros")
	$(SPLIT) rollback $(MODEL) --why $(call quoted,$(WHY))

else

IMAGE_FORMS := IMAGE=registry.example/rollout:TAG rolls out an image; a version takes MODEL=digits VERSION=v2 SHARE=5%

ifeq ($(OVERLAY),argo-rollouts)

canary:
	$(call need,IMAGE,$(IMAGE_FORMS))
	kubectl argo rollouts -n rollout set image rollout '*=$(IMAGE)'

promote:
	kubectl argo rollouts -n rollout promote rollout

rollback:
	kubectl argo rollouts -n rollout abort rollout

else

canary:
	$(call need,IMAGE,$(IMAGE_FORMS))
	kubectl -n rollout set image deployment/rollout '*=$(IMAGE)'

promote:
	$(error MODEL is missing: an image is promoted with OVERLAY=argo-rollouts only; Flagger does it by itself, and a \
	    plain Deployment has nothing to promote)

rollback:
	kubectl -n rollout rollout undo deployment/rollout

endif
endif

.PHONY: deploy canary promote rollback
