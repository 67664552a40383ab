/*
 * For LD_PRELOAD, for tests only: the soft-RoCE provider of rdma-core has no reg_dmabuf_mr operation, so ibv_reg_dmabuf_mr answers
 * EOPNOTSUPP before the kernel is asked. This one asks the kernel. Programs that look the function up at run time by
 * dlvsym() get it too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The beginnings of libibverbs' public structures; the headers are not needed to build this. */
struct context;
struct domain { struct context *context; uint32_t handle; };
struct region { struct context *context; struct domain *domain; void *address; size_t length; uint32_t handle, lkey, rkey; };
/* What the library's own command fills, and the provider's deregistration frees: a region, its kind and its access. */
struct commanded_region { struct region region; int kind, access; char room[64]; };

/* Later releases have an eighth argument, a pointer that may be null; earlier ones do not look at it. */
typedef int command(struct domain *, uint64_t, size_t, uint64_t, int, int, struct commanded_region *, void *);

static struct region *reg_dmabuf_mr(struct domain *domain, uint64_t offset, size_t length, uint64_t address, int fd, int access)
{
	void *library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD);
	command *ask = library ? (command *)dlsym(library, "ibv_cmd_reg_dmabuf_mr") : NULL;
	struct commanded_region *made;
	int error;

	if (library)
		dlclose(library); /* it stays loaded: this only gives back the reference just taken */
	if (!ask) {
		errno = ENOSYS;
		return NULL;
	}
	made = calloc(1, sizeof *made);
	if (!made)
		return NULL;
	error = ask(domain, offset, length, address, fd, access, made, NULL);
	if (error) {
		free(made);
		errno = error;
		return NULL;
	}
	made->region.context = domain->context;
	made->region.domain = domain;
	made->region.address = (void *)(uintptr_t)offset;
	made->region.length = length;
	return &made->region;
}

struct region *ibv_reg_dmabuf_mr(struct domain *domain, uint64_t offset, size_t length, uint64_t address, int fd, int access)
{
	return reg_dmabuf_mr(domain, offset, length, address, fd, access);
}

void *dlvsym(void *library, const char *name, const char *version)
{
	static void *(*next)(void *, const char *, const char *);

	if (!strcmp(name, "ibv_reg_dmabuf_mr"))
		return (void *)ibv_reg_dmabuf_mr;
	if (!next)
		next = (void *(*)(void *, const char *, const char *))dlsym(RTLD_NEXT, "dlvsym");
	return next(library, name, version);
}
